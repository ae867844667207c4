"""Multi-head latent attention: transformers' DeepSeek-V2 and SDPA as oracles."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from transformers import DeepseekV2Config, DynamicCache
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Attention

from snippets.decoding.mla import (
    LatentAttention,
    absorbed_attend,
    check_latent,
    clear_hidden,
    expanded_attend,
)
from snippets.properties.cost import count_flops, largest_bytes
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import Draw, hold
from snippets.properties.kit import (
    agreement,
    batch_independence,
    cached_equals_full,
    causality,
    gradient_flow,
    no_input_mutated,
    registered_parameters,
)
from tests.running import run_main

FORMS = (expanded_attend, absorbed_attend)
each_form = pytest.mark.parametrize("form", FORMS)


# --8<-- [start:two-forms]
def drawn(B=2, H=3, T=4, S=6, K=5, U=2, R=7, V=4):
    """Return queries, latents and weights, all of different sizes."""
    shapes = (B, H, T, K), (B, H, T, U), (B, S, R + U), (H, K, R), (H, V, R)
    return [torch.randn(shape).double() for shape in shapes]


def test_absorbed_equals_expanded():
    """Outputs and the gradients of all five inputs agree, with a mask."""
    inputs, mask = drawn(), torch.rand(2, 3, 4, 6) < 0.6
    results = []
    for form in (expanded_attend, absorbed_attend):
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = form(*leaves, mask)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    print("output and 5 gradients agree in float64")


# --8<-- [end:two-forms]


# --8<-- [start:equals-sdpa]
def test_equals_sdpa_on_rebuilt_heads():
    """Head by head: rebuild its keys and values, append the shared key, SDPA."""
    q, q_rope, kv, up_k, up_v = drawn()
    mask = torch.rand(2, 3, 4, 6) < 0.6
    mask[0, 1, 2] = False  # this query of this head sees nothing
    for form in (expanded_attend, absorbed_attend):
        out = form(q, q_rope, kv, up_k, up_v, mask)
        for h in range(3):
            keys = torch.cat([kv[:, :, :7] @ up_k[h].T, kv[:, :, 7:]], -1)
            values = kv[:, :, :7] @ up_v[h].T
            queries = torch.cat([q[:, h], q_rope[:, h]], -1)
            expected = torch.nn.functional.scaled_dot_product_attention(
                queries, keys, values, mask[:, h]
            )
            torch.testing.assert_close(out[:, h], expected)
        assert out[0, 1, 2].eq(0).all()
        print(f"{form.__name__}: 3 heads agree")


# --8<-- [end:equals-sdpa]


def test_pieces_equal_one_pass():
    """Absorbed from a cache of R + U numbers a token equals expanded in one pass."""
    layer = LatentAttention(6, heads=2, size=3, rotated=2, rank=4).double()

    def step(piece, cache):
        cache = cache or layer.new_cache(batch=len(piece), capacity=7)
        return layer(piece, cache), cache

    def any_cut(draw: Draw):
        x = draw.normal(2, draw.size("T", 1, 7), 6)
        with torch.no_grad():
            cached_equals_full(layer, step, x, draw)

    hold(any_cut)
    cache = layer.new_cache(batch=1, capacity=1)
    held = cache.k_BHSK.numel() + cache.v_BHSV.numel()
    assert held == 4 + 2


def copy_to_deepseek(layer, dtype):
    """Return transformers' attention with our weights, in its layout of pairs."""
    K, U = layer.sizes
    H, R, V = len(layer.up_HKR), layer.rank, layer.up_HVR.shape[1]
    config = DeepseekV2Config(
        hidden_size=layer.to_q.in_features,
        num_attention_heads=H,
        num_key_value_heads=H,
        q_lora_rank=None,
        kv_lora_rank=R,
        qk_nope_head_dim=K,
        qk_rope_head_dim=U,
        v_head_dim=V,
        attn_implementation="sdpa",
    )
    peer = DeepseekV2Attention(config, layer_idx=0).to(dtype)
    # Ours turns channels (i, i + U/2) together, theirs (2i, 2i + 1).
    pairs = torch.arange(U).view(2, U // 2).T.flatten()
    with torch.no_grad():
        q = layer.to_q.weight.unflatten(0, (H, K + U))
        q = torch.cat([q[:, :K], q[:, K:][:, pairs]], 1).flatten(0, 1)
        low = torch.cat([layer.to_latent.weight[:R], layer.to_latent.weight[R:][pairs]])
        up = torch.cat([layer.up_HKR, layer.up_HVR], 1).flatten(0, 1)
        peer.q_proj.weight.copy_(q)
        peer.kv_a_proj_with_mqa.weight.copy_(low)
        peer.kv_a_layernorm.weight.copy_(layer.norm.weight)
        peer.kv_b_proj.weight.copy_(up)
        peer.o_proj.weight.copy_(layer.to_out.weight)
    return peer


def deepseek(peer, x, cuts):
    """Run transformers' attention with its DynamicCache over pieces of x."""
    cache, start, parts, U = DynamicCache(), 0, [], peer.qk_rope_head_dim
    for length in cuts:
        stop = start + length
        seen = [[s <= t for s in range(stop)] for t in range(start, stop)]
        mask = torch.tensor(seen)[None, None]
        rate = torch.tensor([10000.0 ** (-2 * i / U) for i in range(U // 2)])
        angle = torch.arange(start, stop).double()[:, None] * rate.double()
        turn = torch.polar(torch.ones_like(angle), angle)[None]
        turn = turn.to(
            torch.complex128 if x.dtype == torch.float64 else torch.complex64
        )
        out, _ = peer(x[:, start:stop], mask, cache, turn)
        parts.append(out)
        start = stop
    return torch.cat(parts, dim=1)


def in_pieces(layer, x, cuts):
    """Run ours over pieces of x."""
    cache = layer.new_cache(len(x), x.shape[1])
    return torch.cat([layer(piece, cache) for piece in x.split(cuts, 1)], dim=1)


@given(
    seed=st.integers(0, 999),
    H=st.integers(1, 3),
    K=st.integers(1, 4),
    half=st.integers(1, 2),
    R=st.integers(1, 6),
    cuts=st.lists(st.integers(1, 3), min_size=1, max_size=3),
)
def test_equals_deepseek_with_dynamic_cache(seed, H, K, half, R, cuts):
    """Absorbed decoding and one expanded pass agree with transformers'."""
    torch.manual_seed(seed)
    layer = LatentAttention(6, H, K, 2 * half, R).double()
    with torch.no_grad():
        layer.norm.weight.uniform_(0.5, 1.5)
        x = torch.randn(2, sum(cuts), 6).double()
        exact = deepseek(copy_to_deepseek(layer, torch.float64), x, cuts)
        # Its rotation and norm run in float32 whatever the dtype of the model.
        close = {"rtol": 1e-4, "atol": 1e-5 * exact.abs().max().item() + 1e-6}
        torch.testing.assert_close(layer(x), exact, **close)
        torch.testing.assert_close(in_pieces(layer, x, cuts), exact, **close)


@given(
    seed=st.integers(0, 999),
    form=st.sampled_from(FORMS),
    H=st.integers(1, 3),
    T=st.integers(1, 4),
    S=st.integers(1, 5),
    masked=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
def test_error_in_three_dtypes(seed, form, H, T, S, masked, dtype):
    """As exact as the same steps with PyTorch's kernel, up to the order of products.

    Factor 2: the absorbed form rounds other intermediate results than the peer does.
    """
    torch.manual_seed(seed)
    inputs = [x.to(dtype) for x in drawn(H=H, T=T, S=S)]
    mask = torch.rand(2, H, T, S) < 0.6 if masked else None

    def peer(q, q_rope, kv, up_k, up_v):
        parts = []
        for h in range(H):
            c, shared = kv[..., :7], kv[..., 7:]
            parts.append(
                F.scaled_dot_product_attention(
                    torch.cat([q[:, h], q_rope[:, h]], -1),
                    torch.cat([c @ up_k[h].T, shared], -1),
                    c @ up_v[h].T,
                    None if mask is None else mask[:, h],
                )
            )
        return torch.stack(parts, 1)

    exact = peer(*(x.double() for x in inputs))
    allowed = error_budget(peer(*inputs), exact, factor=2)
    # The largest intermediate result bounds what its rounding can move.
    allowed += 4 * torch.finfo(dtype).eps * inputs[2].abs().max().item()
    assert largest_error(form(*inputs, mask), exact) <= allowed


@each_form
def test_hidden_latents_may_hold_nan(form):
    """Neither output nor any gradient sees what no query may see."""
    inputs, mask = drawn(), torch.rand(2, 3, 4, 6) < 0.7
    mask[..., 5] = False
    mask[0, 1, 2] = False
    clean = form(*inputs, mask)
    for bad in (math.nan, math.inf):
        leaves = [x.clone() for x in inputs]
        leaves[2][:, 5] = bad
        leaves[0][0, 1, 2] = bad
        leaves[1][0, 1, 2] = bad
        leaves = [x.requires_grad_() for x in leaves]
        out = form(*leaves, mask)
        torch.testing.assert_close(out, clean)
        out.square().sum().backward()
        assert all(x.grad.isfinite().all() for x in leaves)


def test_clear_hidden():
    """Only blind queries and unseen latents are cleared."""
    q, _, kv, _, _ = drawn()
    assert all(a is b for a, b in zip(clear_hidden(q, kv, None), (q, kv), strict=True))
    mask = torch.ones(2, 3, 4, 6, dtype=torch.bool)
    mask[0, 1, 2] = False
    mask[1, :, :, 4] = False
    mask[0, :2, :, 0] = False  # the third head still sees it
    new_q, new_kv = clear_hidden(q, kv, mask)
    assert new_q[0, 1, 2].eq(0).all()
    assert new_kv[1, 4].eq(0).all()
    assert (new_q != q).any(-1).sum() == 1
    assert (new_kv != kv).any(-1).sum() == 1


@each_form
def test_huge_scores_and_views(form):
    """A lookup at 1e4; transposed inputs give what copies give; nothing is changed."""
    q, q_rope, kv, up_k, up_v = drawn()
    sharp = form(q * 1e4, q_rope * 1e4, kv, up_k, up_v)
    keys = torch.einsum("hkr,bsr->bhsk", up_k, kv[..., :7])
    score = q @ keys.mT + q_rope @ kv[:, None, :, 7:].mT
    values = torch.einsum("hvr,bsr->bhsv", up_v, kv[..., :7])
    expected = values.take_along_dim(score.argmax(-1, keepdim=True), 2)
    torch.testing.assert_close(sharp, expected)
    views = [x.mT.contiguous().mT for x in (q, q_rope, kv, up_k, up_v)]
    assert not views[0].is_contiguous()
    torch.testing.assert_close(form(*views), form(q, q_rope, kv, up_k, up_v))
    no_input_mutated(form, q, q_rope, kv, up_k, up_v)


@each_form
def test_gradcheck(form):
    """Gradients agree with finite differences."""
    inputs = [x.requires_grad_() for x in drawn(1, 2, 2, 3, 2, 2, 2, 2)]
    mask = torch.ones(1, 2, 2, 3, dtype=torch.bool).tril(1)
    assert torch.autograd.gradcheck(form, (*inputs, mask))


def test_properties_of_the_layer():
    """Causal, row by row, every weight reached and registered."""
    layer = LatentAttention(6, heads=2, size=3, rotated=2, rank=4).double()
    hold(lambda draw: causality(layer, draw.normal(2, 5, 6), draw), 10)
    hold(lambda draw: batch_independence(layer, draw.normal(3, 4, 6), draw), 10)
    gradient_flow(layer, torch.randn(2, 5, 6).double())
    registered_parameters(layer)
    assert {n: tuple(p.shape) for n, p in layer.named_parameters()} == {
        "up_HKR": (2, 3, 4),
        "up_HVR": (2, 3, 4),
        "to_q.weight": (10, 6),
        "to_latent.weight": (6, 6),
        "norm.weight": (4,),
        "to_out.weight": (6, 6),
    }
    assert layer.norm.eps == 1e-6
    big = LatentAttention(6, heads=64, size=16, rotated=2, rank=100)
    for up in (big.up_HKR, big.up_HVR):
        assert up.std().item() == pytest.approx(0.1, rel=0.05)


def test_rows_and_dtype_of_a_cache():
    """Decoding a batch equals decoding alone; the cache has the layer's dtype."""
    layer = LatentAttention(6, heads=2, size=3, rotated=2, rank=4).double()
    x = torch.randn(3, 5, 6).double()
    with torch.no_grad():
        together = in_pieces(layer, x, [3, 1, 1])
        alone = torch.cat([in_pieces(layer, one, [3, 1, 1]) for one in x.split(1)])
        agreement(together, alone)
        spoilt = x.clone()
        spoilt[:, 3:] = math.nan
        torch.testing.assert_close(layer(spoilt)[:, :3], layer(x)[:, :3])
    cache = layer.bfloat16().new_cache(3, 9)
    assert cache.k_BHSK.shape == (3, 1, 9, 6)
    assert cache.v_BHSV.shape == (3, 1, 9, 0)
    assert cache.k_BHSK.dtype == torch.bfloat16


def test_absorbed_rebuilds_nothing():
    """No tensor of a step is larger than what is cached; FLOPs as the page states."""
    H, K, U, R, V, S = 8, 16, 8, 32, 16, 500
    inputs = [x.float() for x in drawn(1, H, 1, S, K, U, R, V)]
    assert largest_bytes(lambda: absorbed_attend(*inputs)) <= inputs[2].nbytes
    assert largest_bytes(lambda: expanded_attend(*inputs)) > 2 * inputs[2].nbytes
    for T in (2, 5):
        inputs = drawn(1, H, T, S, K, U, R, V)
        absorbed = count_flops(lambda x=inputs: absorbed_attend(*x))
        assert absorbed == 2 * H * T * (K * R + S * (R + U) + S * R + V * R)
        expanded = count_flops(lambda x=inputs: expanded_attend(*x))
        assert expanded == 2 * H * (S * R * (K + V) + T * S * (K + U + V))


def test_bad_input_is_named():
    """What came and what was expected."""
    q, q_rope, kv, up_k, up_v = drawn()
    for args, sentence in (
        ((q[0], q_rope, kv, up_k, up_v), r"q has shape \(3, 4, 5\), expected 4 axes"),
        (
            (q, q_rope[0], kv, up_k, up_v),
            r"rotated q has shape \(3, 4, 2\), expected 4 axes",
        ),
        ((q, q_rope, kv[0], up_k, up_v), r"latent has shape \(6, 9\), expected 3 axes"),
        ((q, q_rope, kv, up_k[0], up_v), r"up_k has shape \(5, 7\), expected 3 axes"),
        ((q, q_rope, kv, up_k, up_v[0]), r"up_v has shape \(4, 7\), expected 3 axes"),
        (
            (q, q_rope[:, :2], kv, up_k, up_v),
            r"rotated q has shape \(2, 2, 4, 2\), expected \(2, 3, 4, 2\)",
        ),
        (
            (q, q_rope, kv[..., :8], up_k, up_v),
            r"latent has shape \(2, 6, 8\), expected \(2, 6, 9\)",
        ),
        (
            (q, q_rope, kv[:1], up_k, up_v),
            r"latent has shape \(1, 6, 9\), expected \(2, 6, 9\)",
        ),
        (
            (q, q_rope, kv, up_k[:, :3], up_v),
            r"up_k has shape \(3, 3, 7\), expected \(3, 5, 7\)",
        ),
        (
            (q, q_rope, kv, up_k, up_v[:2]),
            r"up_v has shape \(2, 4, 7\), expected \(3, 4, 7\)",
        ),
    ):
        for call in (check_latent, *FORMS):
            with pytest.raises(ValueError, match=f"^{sentence}$"):
                call(*args)
    for mask, sentence in (
        (
            torch.ones(2, 3, 4, 5, dtype=torch.bool),
            r"mask has shape \(2, 3, 4, 5\), expected \(2, 3, 4, 6\)",
        ),
        (torch.ones(2, 3, 4, 6), r"mask has torch\.float32, expected torch\.bool"),
    ):
        for call in (check_latent, *FORMS):
            with pytest.raises(ValueError, match=f"^{sentence}$"):
                call(q, q_rope, kv, up_k, up_v, mask)
    for heads, rotated in ((0, 2), (2, 3)):
        with pytest.raises(
            ValueError,
            match=f"^heads is {heads}, rotated is {rotated}: "
            "expected at least 1 and an even size$",
        ):
            LatentAttention(6, heads, 3, rotated, 4)
    layer = LatentAttention(6, 2, 3, 2, 4)
    for bad, shape in ((torch.randn(2, 3, 5), "2, 3, 5"), (torch.randn(3, 6), "3, 6")):
        with pytest.raises(
            ValueError,
            match=rf"^x has shape \({shape}\), expected \(batch, positions, 6\)$",
        ):
            layer(bad)
    cache = layer.new_cache(1, 2)
    with torch.no_grad(), pytest.raises(ValueError, match="it is full"):
        layer(torch.randn(1, 3, 6), cache)
    with pytest.raises(ValueError, match="requires a gradient"):
        layer(torch.randn(1, 1, 6), cache)


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.decoding.mla").output
    for line in (
        "a token in the cache: 32 numbers, MHA 256",
        "MHA, 128 heads    32768 = 128.00 kv heads, 100.0%",
        "GQA, 8 kv heads    2048 =   8.00 kv heads, 6.2%",
        "MLA                 576 =   2.25 kv heads, 1.8%",
        "MQA                 256 =   1.00 kv heads, 0.8%",
        "without the rotated key: 89% of the truth",
        "decode 1 token: 542.1 MFLOPs expanded, 10.0 absorbed",
        "prefill: 5905.6 MFLOPs expanded, 10200.5 absorbed",
        "divided by the root of K + U = 96: off by 0%",
    ):
        assert line in out
    assert "R + U = 160: off by 0%" not in out
    rows = [line.split() for line in out.splitlines() if line.startswith("t = ")]
    assert rows[0][-1] == rows[1][-1]
    assert rows[0][-4] != rows[1][-4]
