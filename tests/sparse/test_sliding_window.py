"""Sliding window: SDPA, FlexAttention and Mistral as oracles; chunks, cache, reach."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from snippets.properties.cost import count_flops, exponent, largest_bytes
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import (
    cached_equals_full,
    causality,
    chunked_equals_whole,
    convexity,
    gradient_flow,
    no_input_mutated,
)
from snippets.sparse.sliding_window import RollingCache, window_attention, window_mask
from tests.running import run_main


# --8<-- [start:equals-dense]
def band(T, S, W):
    """The same window, written as two triangles."""
    ones = torch.ones(T, S, dtype=torch.bool)
    return ones.tril(S - T) & ~ones.tril(S - T - W)


def test_equals_dense():
    """Outputs and gradients equal SDPA's with a band mask; C does not divide T."""
    for T, S, W, C in ((37, 37, 8, None), (37, 37, 8, 5), (3, 20, 6, None)):
        q, k, v = (torch.randn(2, 3, n, 16) for n in (T, S, S))
        results = []
        for dtype, ours in ((None, True), (None, False), (torch.float64, False)):
            leaves = [x.to(dtype).detach().requires_grad_() for x in (q, k, v)]
            if ours:
                out = window_attention(*leaves, W, C)
            else:
                mask = band(T, S, W)
                out = F.scaled_dot_product_attention(*leaves, mask)
            results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
        for a, b, exact in zip(*results, strict=True):
            assert largest_error(a, exact) <= error_budget(b, exact, factor=2)
        error = largest_error(results[0][0], results[2][0])
        print(f"T = {T}, S = {S}, W = {W}, C = {C}: out off by {error:.1e}")


# --8<-- [end:equals-dense]


# --8<-- [start:cached]
def test_cached_equals_full():
    """A ring of W slots, fed in pieces of any length, gives what the whole gives."""
    x = torch.randn(1, 2, 23, 8, dtype=torch.float64)
    full = window_attention(x, x, x, 5)
    for pieces in ([1] * 23, [9, 14], [2, 5, 1, 6, 9]):
        cache = RollingCache(5)
        out = torch.cat([cache.step(p, p, p) for p in x.split(pieces, dim=2)], dim=2)
        torch.testing.assert_close(out, full)
        assert cache.k_BHWK.shape[2] == 5
    print("one by one, prompts longer than the window, mixed: all equal the whole")


# --8<-- [end:cached]


# --8<-- [start:reach]
def test_reach_grows_by_w_minus_one():
    """After L layers the last output depends on exactly L (W - 1) + 1 inputs."""
    for W in (1, 2, 5):
        for L in (1, 2, 3):
            x = torch.randn(1, 1, 20, 4, dtype=torch.float64, requires_grad=True)
            y = x
            for _ in range(L):
                y = window_attention(y, y, y, W)
            (grad,) = torch.autograd.grad(y[:, :, -1].sum(), x)
            touched = grad[0, 0].any(dim=-1).nonzero().flatten()
            assert touched.tolist() == list(range(20 - L * (W - 1) - 1, 20))
    print("W = 5, L = 3: inputs", touched[0].item(), "to", touched[-1].item())


# --8<-- [end:reach]


@given(
    seed=st.integers(0, 999),
    S=st.integers(1, 12),
    fewer=st.integers(0, 11),
    W=st.integers(1, 14),
    C=st.integers(1, 14),
)
@example(seed=0, S=11, fewer=3, W=4, C=3)
@example(seed=0, S=5, fewer=0, W=9, C=9)
def test_equals_dense_on_any_shape(seed, S, fewer, W, C):
    """One token, windows and chunks longer than the sequence, fewer queries than keys."""
    torch.manual_seed(seed)
    T = max(1, S - fewer)
    q, k = torch.randn(2, 1, T, 3), torch.randn(2, 1, S, 3)
    v = torch.randn(2, 1, S, 2)
    exact = F.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), band(T, S, W)
    )
    peer = F.scaled_dot_product_attention(q, k, v, band(T, S, W))
    for chunk in (None, C):
        ours = window_attention(q, k, v, W, chunk)
        assert largest_error(ours, exact) <= error_budget(peer, exact, factor=2)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_equals_flex_attention():
    """FlexAttention states the window as a rule on two indices."""
    x = torch.randn(1, 2, 33, 16)
    device = x.device.type
    mask = create_block_mask(
        lambda b, h, q, k: (q >= k) & (q - k < 7), None, None, 33, 33, device=device
    )
    peer = flex_attention(x, x, x, block_mask=mask)
    exact = F.scaled_dot_product_attention(*[x.double()] * 3, band(33, 33, 7))
    ours = window_attention(x, x, x, 7)
    assert largest_error(ours, exact) <= error_budget(peer, exact, factor=2)


def test_window_is_mistrals():
    """`transformers` makes the same mask from Mistral's sliding_window."""
    transformers = pytest.importorskip("transformers")
    from transformers.masking_utils import create_sliding_window_causal_mask

    config = transformers.MistralConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        sliding_window=4,
    )
    config._attn_implementation = "eager"
    theirs = create_sliding_window_causal_mask(
        config, torch.zeros(1, 9, 8), torch.ones(1, 9, dtype=torch.long), None
    )
    assert (theirs[0, 0] == 0).equal(window_mask(9, 9, 4))


def test_mask_counts():
    """Query t sees min(t + 1, W) keys, itself last."""
    mask = window_mask(7, 7, 3)
    assert mask.sum(1).tolist() == [1, 2, 3, 3, 3, 3, 3]
    assert mask.diagonal().all()
    assert not mask.triu(1).any()
    assert window_mask(2, 7, 3).equal(mask[5:])
    assert mask.dtype == torch.bool


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_error_in_every_dtype(dtype):
    """The error stays within what PyTorch's own kernel makes."""
    q, k, v = (torch.randn(2, 2, 45, 16).to(dtype) for _ in range(3))
    exact = F.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), band(45, 45, 9)
    )
    peer = F.scaled_dot_product_attention(q, k, v, band(45, 45, 9))
    ours = window_attention(q, k, v, 9)
    assert ours.dtype == dtype
    assert largest_error(ours, exact) <= error_budget(peer, exact, factor=2)
    cache = RollingCache(9)
    parts = [
        cache.step(q[:, :, a:b], k[:, :, a:b], v[:, :, a:b])
        for a, b in ((0, 20), (20, 21), (21, 45))
    ]
    assert cache.k_BHWK.dtype == cache.v_BHWV.dtype == dtype
    cached = torch.cat(parts, dim=2)
    assert largest_error(cached, exact) <= error_budget(peer, exact, factor=2)


def test_properties():
    """Causal, convex, chunks and pieces do not matter, inputs and gradients fine."""

    def window(x_BHTK, chunk=None):
        return window_attention(x_BHTK, x_BHTK, x_BHTK, 3, chunk)

    def step(x_BHTK, cache):
        cache = cache or RollingCache(3)
        return cache.step(x_BHTK, x_BHTK, x_BHTK), cache

    def values(draw):
        x = draw.normal(1, 2, 7, 4)
        return lambda v: window_attention(x, x, v, 3)

    def x(draw):
        return draw.normal(2, 2, draw.size("T", 2, 9), 4)

    hold(lambda draw: causality(window, x(draw), draw, axis=2))
    hold(lambda draw: chunked_equals_whole(window, window, x(draw), draw, axis=2))
    hold(lambda draw: cached_equals_full(window, step, x(draw), draw, axis=2))
    hold(lambda draw: convexity(values(draw), draw.normal(1, 2, 7, 3), draw))
    qkv = [torch.randn(1, 2, 9, 4) for _ in range(3)]
    gradient_flow(lambda q, k, v: window_attention(q, k, v, 4), *qkv)
    no_input_mutated(lambda q, k, v: window_attention(q, k, v, 4), *qkv)
    no_input_mutated(lambda q, k, v: RollingCache(4).step(q, k, v), *qkv)


def test_outside_the_window_may_hold_nan():
    """NaN and Inf reach exactly the W queries that see them."""
    x = torch.randn(1, 1, 20, 4)
    clean = window_attention(x, x, x, 6)
    for bad in (math.nan, math.inf):
        k, v = x.clone(), x.clone()
        k[:, :, 7] = v[:, :, 7] = bad
        out = window_attention(x, k, v, 6)
        touched = [t for t in range(20) if not out[0, 0, t].isfinite().all()]
        assert set(touched) <= set(range(7, 13))
        assert 7 in touched
        untouched = [t for t in range(20) if t not in range(7, 13)]
        torch.testing.assert_close(out[:, :, untouched], clean[:, :, untouched])


def test_nan_before_every_window_does_not_reach_gradients():
    """With fewer queries than keys, the oldest keys are seen by nobody."""
    q = torch.randn(1, 1, 3, 4, requires_grad=True)
    k, v = torch.randn(1, 1, 12, 4), torch.randn(1, 1, 12, 4)
    k[:, :, :5] = v[:, :, :5] = math.nan
    for leaf in (k, v):
        leaf.requires_grad_()
    out = window_attention(q, k, v, 4)
    grads = torch.autograd.grad(out.square().sum(), (q, k, v))
    assert out.isfinite().all()
    assert all(grad.isfinite().all() for grad in grads)
    assert grads[1][:, :, :6].eq(0).all()
    assert grads[1][:, :, 6:].ne(0).all()


def test_huge_scores():
    """Scores of ±1e4 pick one key each and stay finite."""
    q = torch.full((1, 1, 9, 1), 100.0)
    k = torch.tensor([100.0, -100.0] * 4 + [100.0]).reshape(1, 1, 9, 1)
    v = torch.randn(1, 1, 9, 3)
    out = window_attention(q, k, v, 2)
    torch.testing.assert_close(out[:, :, 1::2], v[:, :, 0:-1:2])
    torch.testing.assert_close(out[:, :, 2::2], v[:, :, 2::2])


def test_not_contiguous():
    """Transposed and expanded inputs give the same."""
    x = torch.randn(2, 11, 3, 4)
    q = x.transpose(1, 2)
    k = torch.randn(1, 1, 11, 4).expand(2, 3, 11, 4)
    expected = window_attention(q.contiguous(), k.contiguous(), k.contiguous(), 4)
    torch.testing.assert_close(window_attention(q, k, k, 4), expected)


def test_gradcheck():
    """Gradients agree with finite differences."""
    shapes = ((1, 2, 4, 2), (1, 2, 7, 2), (1, 2, 7, 3))
    leaves = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    assert torch.autograd.gradcheck(lambda *x: window_attention(*x, 3), leaves)


def test_nothing_of_size_t_by_s():
    """The largest tensor and the FLOPs grow with T, not T²: 2 W - 1 keys a query."""
    x = torch.randn(2, 3, 256, 8)
    assert count_flops(lambda: window_attention(x, x, x, 16)) == (4 * 6 * 256 * 31 * 8)
    sizes = []
    for T in (256, 512, 1024):
        x = torch.randn(1, 1, T, 8)
        sizes.append(largest_bytes(lambda x=x: window_attention(x, x, x, 16)))
        assert sizes[-1] == 4 * T * 31
    assert exponent((256, 512, 1024), sizes) == pytest.approx(1)
    # One decoding step takes one query, not a chunk of W.
    q = torch.randn(1, 1, 1, 8)
    assert count_flops(lambda: window_attention(q, x, x, 16)) == 4 * 16 * 8
    # A window longer than the sequence does not pad the keys to its length.
    x = torch.randn(1, 1, 4, 8)
    assert largest_bytes(lambda: window_attention(x, x, x, 10**6)) < 4 * 400


def test_slots():
    """Position p stands in slot p mod W, also after a prompt longer than the window."""
    for pieces in ([7], [1] * 7, [2, 5]):
        cache, x = RollingCache(3), torch.arange(7.0).reshape(1, 1, 7, 1)
        for part in x.split(pieces, dim=2):
            cache.step(part, part, part + 10)
        assert cache.k_BHWK.flatten().tolist() == [6, 4, 5]
        assert cache.v_BHWV.flatten().tolist() == [16, 14, 15]
        assert cache.seen == 7


def test_bad_input_is_named():
    """What came and what was expected."""
    x = torch.randn(1, 2, 5, 4)
    with pytest.raises(ValueError, match=r"^window is 0, expected at least 1$"):
        window_attention(x, x, x, 0)
    with pytest.raises(ValueError, match=r"^chunk is 0, expected at least 1$"):
        window_attention(x, x, x, 3, 0)
    with pytest.raises(
        ValueError,
        match=r"^query has 5 positions, key has 4: queries are the last positions of "
        "the keys, so there cannot be more$",
    ):
        window_attention(x, x[:, :, :4], x[:, :, :4], 3)
    with pytest.raises(ValueError, match=r"^key has size 3, query has size 4: they"):
        window_attention(x, x[..., :3], x, 3)
    with pytest.raises(ValueError, match=r"^window is 0, expected at least 1$"):
        RollingCache(0)
    RollingCache(1)
    cache = RollingCache(3)
    cache.step(x, x, x)
    with pytest.raises(
        ValueError, match=r"^query has positions 4, key has 5: they must agree$"
    ):
        cache.step(x[:, :, :4], x, x)
    with pytest.raises(
        ValueError, match=r"^key has batch 2, the cache has 1: they must agree$"
    ):
        cache.step(*[torch.randn(2, 2, 1, 4)] * 3)


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.sparse.sliding_window").output
    assert "[0, 0, 0, 1, 1, 1]]" in out
    assert "after position 5: [4, 5, 2, 3]" in out
    assert (
        "T = 4096: window  66.6 MFLOPs, 11.5 MiB | "
        "all, masked 2147.5 MFLOPs, 273.0 MiB" in out
    )
    assert "rolling, W = 4096: 16 MiB a layer" in out
    assert "full, 32768 tokens: 128 MiB a layer" in out
    assert "window_size=(1024, 0): the last query sees 1025 keys" in out
    assert "window_size=(1023, 0): the last query sees 1024 keys" in out
    assert "write, then read: query 0 moves by 1.00" in out
    assert "read, then write: query 0 moves by 0.00" in out
    assert "slots 0 1 2 3:     ['0.13', '0.39', '0.61', '0.00']" in out
    assert "positions 2 3 4 5: ['0.00', '0.00', '0.00', '0.00']" in out
