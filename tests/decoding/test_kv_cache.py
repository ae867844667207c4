"""KV cache: transformers' Llama and DynamicCache as oracle, pieces equal the whole."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention

from snippets.decoding.kv_cache import (
    CachedAttention,
    KVCache,
    cache_bytes,
    causal_mask,
    check_piece,
    prefill,
    rotate,
)
from snippets.properties.cost import count_flops, peak_bytes
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import Draw, hold
from snippets.properties.kit import (
    agreement,
    batch_independence,
    cached_equals_full,
    causality,
    chunked_equals_whole,
    gradient_flow,
    no_input_mutated,
    registered_parameters,
)
from tests.running import run_main


# --8<-- [start:pieces]
def test_every_cut_equals_one_pass():
    """Cut 6 positions in all 32 ways: the outputs are those of one causal pass."""
    layer, x = CachedAttention(8, 2).double(), torch.randn(2, 6, 8).double()
    with torch.no_grad():
        whole = layer(x)
        for ways in range(32):
            ends = [t for t in range(1, 6) if ways >> t - 1 & 1] + [6]
            cache, parts = KVCache(2, 2, 6, 4, torch.float64), []
            for end in ends:
                parts.append(layer(x[:, cache.length : end], cache))
            torch.testing.assert_close(torch.cat(parts, 1), whole)
    print("32 ways to cut 6 positions: equal")


# --8<-- [end:pieces]


def test_drawn_pieces_equal_one_pass():
    """Sequences of any length, cut anywhere."""
    layer = CachedAttention(8, 2).double()

    def step(piece, cache):
        cache = cache or KVCache(len(piece), 2, 9, 4, torch.float64)
        return layer(piece, cache), cache

    def any_cut(draw: Draw):
        x = draw.normal(2, draw.size("T", 1, 9), 8)
        with torch.no_grad():
            cached_equals_full(layer, step, x, draw)

    hold(any_cut, examples=50)


# --8<-- [start:equals-sdpa]
def test_one_pass_equals_sdpa():
    """Without a cache the layer is full causal attention, gradients included."""
    layer, x = CachedAttention(32, 4), torch.randn(2, 9, 32)
    results = []
    for dtype in (None, torch.float32, torch.float64):
        module = layer.to(dtype or torch.float32)
        leaf = x.to(dtype).detach().requires_grad_()
        if dtype is None:
            out = module(leaf)
        else:
            three = (module.to_q, module.to_k, module.to_v)
            q, k, v = (to(leaf).view(2, 9, 4, 8).transpose(1, 2) for to in three)
            turn = torch.polar(
                torch.ones(9, 4).to(dtype),
                torch.arange(9).outer(10000 ** -(torch.arange(4) / 4)).to(dtype),
            )  # rotating a pair is multiplying a complex number
            q, k = (torch.complex(*y.chunk(2, -1)) * turn for y in (q, k))
            q, k = (torch.cat([y.real, y.imag], -1) for y in (q, k))
            heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            out = module.to_out(heads.transpose(1, 2).reshape(2, 9, 32))
        results.append([out, *torch.autograd.grad(out.square().sum(), leaf)])
    for name, ours, theirs, exact in zip(("out", "dx"), *results, strict=True):
        error, allowed = largest_error(ours, exact), error_budget(theirs, exact)
        assert error <= allowed
        print(f"{name}: largest error {error:.1e}, allowed {allowed:.1e}")


# --8<-- [end:equals-sdpa]


def test_a_step_does_the_work_of_one_position():
    """8·D² for the projections of one row, 4·S·D for one query against S keys."""
    layer = CachedAttention(32, 4)
    for S in (2, 10, 100):
        cache = KVCache(1, 4, 100, 8)
        with torch.no_grad():
            layer(torch.randn(1, S - 1, 32), cache)
            flops = count_flops(lambda c=cache: layer(torch.randn(1, 1, 32), c))
        assert flops == 8 * 32**2 + 4 * S * 32


def copy_to_llama(layer, sdpa=True):
    """Return transformers' attention with the weights of ours, in its dtype."""
    size = layer.to_q.in_features
    config = LlamaConfig(
        hidden_size=size,
        num_attention_heads=layer.heads,
        num_key_value_heads=layer.heads,
        attn_implementation="sdpa" if sdpa else "eager",
    )
    peer = LlamaAttention(config, layer_idx=0).to(layer.to_q.weight.dtype)
    with torch.no_grad():
        for to, theirs in (
            (layer.to_q, peer.q_proj),
            (layer.to_k, peer.k_proj),
            (layer.to_v, peer.v_proj),
            (layer.to_out, peer.o_proj),
        ):
            theirs.weight.copy_(to.weight)
    return peer


def turns(size, start, stop, dtype):
    """Return cosines and sines for transformers, one position and pair at a time."""
    angle = [
        [p / 10000 ** (2 * (i % (size // 2)) / size) for i in range(size)]
        for p in range(start, stop)
    ]
    cos = torch.tensor([[math.cos(a) for a in row] for row in angle], dtype=dtype)
    sin = torch.tensor([[math.sin(a) for a in row] for row in angle], dtype=dtype)
    return cos[None], sin[None]


def llama(peer, x, cuts):
    """Run transformers' attention with its DynamicCache over pieces of x."""
    cache, start, parts = DynamicCache(config=peer.config), 0, []
    for length in cuts:
        stop = start + length
        seen = [[s <= t for s in range(stop)] for t in range(start, stop)]
        bias = torch.zeros(length, stop, dtype=x.dtype)
        bias = bias.masked_fill(~torch.tensor(seen), -math.inf)[None, None]
        turn = turns(peer.head_dim, start, stop, x.dtype)
        out, _ = peer(x[:, start:stop], turn, bias, cache=cache)
        parts.append(out)
        start = stop
    return torch.cat(parts, dim=1)


def in_pieces(layer, x, cuts):
    """Run ours over pieces of x."""
    size = layer.to_q.in_features // layer.heads
    cache = KVCache(len(x), layer.heads, x.shape[1], size, x.dtype)
    return torch.cat([layer(piece, cache) for piece in x.split(cuts, 1)], dim=1)


@given(
    seed=st.integers(0, 999),
    B=st.integers(1, 2),
    H=st.integers(1, 3),
    half=st.integers(1, 3),
    cuts=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
def test_equals_llama_with_dynamic_cache(seed, B, H, half, cuts, dtype):
    """Prefill and decode agree with transformers' in three dtypes."""
    torch.manual_seed(seed)
    layer = CachedAttention(2 * half * H, H).to(dtype)
    x = torch.randn(B, sum(cuts), 2 * half * H, dtype=dtype)
    with torch.no_grad():
        peer = llama(copy_to_llama(layer), x, cuts)
        ours = in_pieces(layer, x, cuts)
        layer.double()
        exact = llama(copy_to_llama(layer), x.double(), cuts)
    assert largest_error(ours, exact) <= error_budget(peer, exact)


def test_equals_llama_in_float64():
    """To the last digits, at positions where angles are large."""
    layer, x = CachedAttention(24, 3).double(), torch.randn(2, 300, 24).double()
    peer = copy_to_llama(layer, sdpa=False)
    with torch.no_grad():
        exact = llama(peer.float().double(), x, [290, 9, 1])
        layer.load_state_dict(
            {k: v.float().double() for k, v in layer.state_dict().items()}
        )
        # transformers' softmax runs in float32 there, hence the tolerance.
        torch.testing.assert_close(
            in_pieces(layer, x, [290, 9, 1]), exact, rtol=0, atol=1e-6
        )


@given(T=st.integers(1, 9), start=st.integers(0, 5000), half=st.integers(1, 4))
def test_rotation_equals_transformers(T, start, half):
    """The angles are exact in bfloat16, too: only the products are rounded."""
    x = torch.randn(1, 1, T, 2 * half, dtype=torch.float64)
    cos, sin = turns(2 * half, start, start + T, torch.float64)
    low, high = x.chunk(2, -1)
    expected = x * cos + torch.cat([-high, low], -1) * sin
    torch.testing.assert_close(rotate(x, start), expected)
    half_precision = rotate(x.bfloat16(), start)
    exact = rotate(x.bfloat16().double(), start)
    eps = torch.finfo(torch.bfloat16).eps
    assert (half_precision - exact).abs().max() <= 3 * eps * exact.abs().max() + 3 * eps


def test_rotation_keeps_relative_positions():
    """Scores depend on the distance only; a base of its own is used."""
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)
    near = (rotate(q, 4) * rotate(k, 1)).sum()
    far = (rotate(q, 1004) * rotate(k, 1001)).sum()
    torch.testing.assert_close(near, far)
    x = torch.randn(1, 1, 2, 8)
    assert rotate(x)[:, :, 0].equal(x[:, :, 0])  # it stands at 0 unless told otherwise
    one = torch.tensor([[[[1.0, 0.0]]]], dtype=torch.float64)
    assert rotate(one, 1).flatten().tolist() == pytest.approx(
        [math.cos(1), math.sin(1)]
    )
    four = torch.tensor([[[[0.0, 1.0, 0.0, 0.0]]]], dtype=torch.float64)
    assert rotate(four, 3, base=100.0).flatten().tolist() == pytest.approx(
        [0, math.cos(0.3), 0, math.sin(0.3)]
    )


def test_causal_mask_is_aligned_bottom_right():
    """Query t of the last T of S positions stands at S - T + t."""
    for T in range(1, 5):
        for S in range(1, 6):
            expected = [[s <= S - T + t for s in range(S)] for t in range(T)]
            assert causal_mask(T, S).tolist() == expected
    assert causal_mask(2, 2).dtype == torch.bool


def test_more_queries_than_keys():
    """The first of them see nothing: rows of False, outputs of zero in `attend`."""
    assert causal_mask(3, 1).tolist() == [[False], [False], [True]]


def test_prefill_in_chunks_equals_whole():
    """Chunks that do not divide the length, a chunk longer than the prompt."""
    layer = CachedAttention(8, 2).double()

    def chunked(x, chunk):
        return prefill(layer, x, KVCache(1, 2, x.shape[1], 4, x.dtype), chunk)

    def any_chunk(draw: Draw):
        x = draw.normal(1, draw.size("T", 1, 7), 8)
        with torch.no_grad():
            chunked_equals_whole(layer, chunked, x, draw)

    hold(any_chunk)


def test_properties_of_the_layer():
    """Causal, row by row, differentiable, and nothing is changed in place."""
    layer = CachedAttention(8, 2).double()
    hold(lambda draw: causality(layer, draw.normal(2, 6, 8), draw))
    hold(lambda draw: batch_independence(layer, draw.normal(3, 4, 8), draw))
    x = torch.randn(2, 5, 8).double()
    gradient_flow(layer, x)
    no_input_mutated(layer, x)
    registered_parameters(layer)
    assert [name for name, _ in layer.named_parameters()] == [
        f"to_{name}.weight" for name in ("q", "k", "v", "out")
    ]
    assert torch.autograd.gradcheck(layer, x.requires_grad_())


def test_rows_of_a_cache_do_not_mix():
    """Decoding a batch equals decoding each sequence alone."""
    layer, x = CachedAttention(8, 2).double(), torch.randn(3, 5, 8).double()
    with torch.no_grad():
        together = in_pieces(layer, x, [3, 1, 1])
        alone = torch.cat([in_pieces(layer, one, [3, 1, 1]) for one in x.split(1)])
    agreement(together, alone)


def test_nan_in_the_future_and_beyond_the_filled_part():
    """What comes later may hold NaN, and so may room that is not filled yet."""
    layer, x = CachedAttention(8, 2).double(), torch.randn(1, 6, 8).double()
    with torch.no_grad():
        expected = layer(x)
        for bad in (math.nan, math.inf):
            spoilt = x.clone()
            spoilt[:, 4:] = bad
            torch.testing.assert_close(layer(spoilt)[:, :4], expected[:, :4])
            cache = KVCache(1, 2, 9, 4, torch.float64)
            cache.k_BHSK.fill_(bad)
            cache.v_BHSV.fill_(bad)
            torch.testing.assert_close(prefill(layer, x, cache, 4), expected)


def test_huge_scores():
    """Weights become a lookup, nothing overflows."""
    layer = CachedAttention(4, 1).double()
    x = torch.randn(1, 5, 4).double()
    with torch.no_grad():
        layer.to_q.weight.mul_(1e4)
        out = in_pieces(layer, x, [2, 2, 1])
        assert out.isfinite().all()
        torch.testing.assert_close(out, layer(x))


def test_takes_what_is_not_contiguous():
    """Transposed input, and keys that are a view."""
    layer, x = CachedAttention(8, 2).double(), torch.randn(5, 2, 8).double()
    view = x.transpose(0, 1)
    assert not view.is_contiguous()
    with torch.no_grad():
        agreement(in_pieces(layer, view, [2, 3]), layer(view.contiguous()))


def test_cache_is_one_piece_of_memory():
    """Appending writes in place and returns views; keys and values stay apart."""
    cache = KVCache(2, 3, 5, 4)
    addresses = cache.k_BHSK.data_ptr(), cache.v_BHSV.data_ptr()
    assert addresses[0] != addresses[1]
    new = torch.arange(2 * 3 * 5 * 4.0).reshape(2, 3, 5, 4)
    for start, stop in ((0, 2), (2, 3), (3, 5)):
        k, v = cache.append(new[:, :, start:stop], -new[:, :, start:stop])
        assert (k.data_ptr(), v.data_ptr()) == addresses
        assert k.equal(new[:, :, :stop])
        assert v.equal(-new[:, :, :stop])
        assert cache.length == stop
    assert cache.k_BHSK.shape == cache.v_BHSV.shape == (2, 3, 5, 4)
    assert (cache.k_BHSK.dtype, cache.v_BHSV.dtype) == (torch.float32,) * 2
    half = KVCache(1, 1, 1, 2, torch.bfloat16)
    assert (half.k_BHSK.dtype, half.v_BHSV.dtype) == (torch.bfloat16,) * 2
    assert KVCache(1, 1, 2, 2).k_BHSK.eq(0).all()
    narrow = KVCache(1, 1, 2, 3, value_size=0)  # as in multi-head latent attention
    assert narrow.append(torch.ones(1, 1, 1, 3), torch.ones(1, 1, 1, 0))[1].numel() == 0
    assert KVCache(1, 1, 2, 2).length == 0


def test_memory_of_prefill():
    """Scores of a chunk are C × S instead of T × T."""
    layer, x = CachedAttention(8, 1), torch.randn(1, 512, 8)
    with torch.no_grad():
        whole, chunked = (
            peak_bytes(lambda c=c: prefill(layer, x, KVCache(1, 1, 512, 8), c))
            for c in (512, 32)
        )
    assert whole > 5 * chunked


def test_bytes_of_a_token():
    """Keys and values of every key/value head in every layer."""
    assert cache_bytes(3, 5, 7, 1) == 3 * 5 * 7 * 2
    assert cache_bytes(1, 1, 1) == 4
    cache = KVCache(1, 5, 1, 7)
    assert cache_bytes(1, 5, 7, 4) == cache.k_BHSK.nbytes + cache.v_BHSV.nbytes


def test_bad_input_is_named():
    """What came and what was expected; a refused piece leaves no trace."""
    cache, x = KVCache(2, 3, 5, 4), torch.randn(2, 3, 2, 4)
    for bad in (x[:1], x[:, :2], x[..., :3], x[0]):
        shape = ", ".join(map(str, bad.shape))
        with pytest.raises(
            ValueError,
            match=rf"^key has shape \({shape}\), expected \(2, 3, positions, 4\)$",
        ):
            cache.append(bad, bad)
    with pytest.raises(
        ValueError,
        match=r"^value has shape \(2, 3, 1, 4\), expected \(2, 3, 2, 4\)$",
    ):
        cache.append(x, x[:, :, :1])
    for name, k, v in (("key", x.double(), x), ("value", x, x.double())):
        with pytest.raises(
            ValueError,
            match=rf"^{name} has torch\.float64, the cache has torch\.float32: they must agree$",
        ):
            cache.append(k, v)
    with pytest.raises(
        ValueError, match=r"^value has shape \(2, 3, 2, 4\), expected \(2, 3, 2, 1\)$"
    ):
        KVCache(2, 3, 5, 4, value_size=1).append(x, x)
    learned = x.clone().requires_grad_()
    for name, k, v in (("key", learned, x), ("value", x, learned)):
        with pytest.raises(
            ValueError,
            match=rf"^{name} requires a gradient, expected none: fill a cache under torch\.no_grad\(\)$",
        ):
            check_piece(cache, k, v)
    assert cache.length == 0
    assert cache.k_BHSK.eq(0).all()
    cache.append(x, x)
    cache.append(x, x)
    with pytest.raises(
        ValueError,
        match=r"^key has 2 positions, the cache has room for 1 more of 5: it is full$",
    ):
        cache.append(x, x)
    assert cache.length == 4
    assert cache.k_BHSK[:, :, 4].eq(0).all()
    cache.append(x[:, :, :1], x[:, :, :1])
    assert cache.length == 5
    for heads, size in ((3, 8), (0, 8), (2, 6)):
        with pytest.raises(
            ValueError,
            match=rf"^heads is {heads}, model_size is {size}: each head must get an even share$",
        ):
            CachedAttention(size, heads)
    layer = CachedAttention(8, 2)
    for bad, shape in ((torch.randn(2, 3, 7), "2, 3, 7"), (torch.randn(3, 8), "3, 8")):
        with pytest.raises(
            ValueError,
            match=rf"^x has shape \({shape}\), expected \(batch, positions, 8\)$",
        ):
            layer(bad)
    with pytest.raises(ValueError, match=r"^chunk is 0, expected at least 1$"):
        prefill(layer, torch.randn(1, 2, 8), cache, 0)


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.decoding.kv_cache").output
    for line in (
        "prefill 3 + 3 + 1, decode 1 + 1 + 1: 10 positions in the cache",
        "key has 10 positions, the cache has room for 6 more of 16: it is full",
        " 64     2080 without      2080                 91.1",
        " 64       64 with         2080                  2.6",
        "LLaMA 7B,  32 kv heads: 512 KiB a token, 8192 tokens 4 GiB",
        "Llama 3 8B, 8 kv heads: 128 KiB a token, 8192 tokens 1 GiB",
        "weights of a decode step: [1.0, 0.0, 0.0, 0.0, 0.0]",
        "causal_mask(1, 5): [[1, 1, 1, 1, 1]]",
        "causal_mask(2, 5): [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]",
        "without a mask, wrong positions: [1, 1, 1, 1, 0]",
    ):
        assert line in out
