"""Multiplicative attention: SDPA without a scale, loops in float64, windows, places."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snippets.foundations.multiplicative import (
    attend_globally,
    attend_near,
    attentional_state,
    concat,
    dot,
    flops_of,
    general,
    monotonic_places,
    near,
    predicted_places,
)
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import batch_independence, convexity, gradient_flow
from tests.running import run_main


# --8<-- [start:equals-sdpa]
def test_equals_sdpa_without_a_scale():
    """With dot, attention is PyTorch's with scale=1; with general, on projected queries."""
    q, k, v = torch.randn(2, 4, 6), torch.randn(2, 9, 6), torch.randn(2, 9, 5)
    keep, weight = torch.rand(2, 9) < 0.7, torch.randn(3, 6)
    small, mask = torch.randn(2, 4, 3), keep.unsqueeze(1)
    for name, score, query, projected in (
        ("dot", dot, q, q),
        ("general", partial(general, weight_DK=weight), small, small @ weight),
    ):
        ours, _ = attend_globally(score, query, k, v, keep)
        theirs, exact = (
            torch.nn.functional.scaled_dot_product_attention(*three, mask, scale=1.0)
            for three in (
                (projected, k, v),
                (projected.double(), k.double(), v.double()),
            )
        )
        error, allowed = largest_error(ours, exact), error_budget(theirs, exact)
        assert error <= allowed
        print(f"{name}: largest error {error:.1e}, allowed {allowed:.1e}")


# --8<-- [end:equals-sdpa]


def test_concat_equals_its_formula():
    """Pair by pair: v·tanh(W [q; k]) with a real concatenation."""
    q, k = torch.randn(2, 3, 4).double(), torch.randn(2, 5, 6).double()
    weight, v = torch.randn(8, 10).double(), torch.randn(8).double()
    score = concat(q, k, weight, v)
    for b, t, s in torch.cartesian_prod(*map(torch.arange, score.shape)).tolist():
        pair = torch.cat([q[b, t], k[b, s]])
        torch.testing.assert_close(score[b, t, s], v @ torch.tanh(weight @ pair))
    print("concat: equal for all", score.numel(), "pairs")


def test_local_p_equals_its_formula():
    """Key by key in float64: softmax over the window, then the Gaussian."""
    q, k, v = (torch.randn(2, n, 6).double() for n in (4, 9, 9))
    keep = torch.arange(9) < torch.tensor([[9], [5]])
    place = predicted_places(
        q, keep, torch.randn(8, 6).double(), torch.randn(8).double()
    )
    out, _ = attend_near(dot, q, k, v, keep, place, window=3, sigma=1.5)
    for b, t in torch.cartesian_prod(torch.arange(2), torch.arange(4)).tolist():
        p = place[b, t].item()
        seen = [s for s in range(9) if keep[b, s] and abs(s - p) <= 3]
        share = [math.exp(q[b, t] @ k[b, s]) for s in seen]
        expected = sum(
            e / sum(share) * math.exp(-((s - p) ** 2) / (2 * 1.5**2)) * v[b, s]
            for e, s in zip(share, seen, strict=True)
        )
        torch.testing.assert_close(out[b, t], expected)
    print("local-p: equal for 8 queries, places from", f"{place.min():.2f} to", end=" ")
    print(f"{place.max():.2f}")


# --8<-- [start:window-equals-mask]
def test_window_equals_a_band():
    """local-m scores few keys and equals SDPA under a band mask, even past the source."""
    q, k, v = (torch.randn(2, n, 6).double() for n in (12, 9, 9))
    keep = torch.arange(9) < torch.tensor([[9], [5]])
    for window in (0, 1, 3, 20):
        ours, _ = attend_near(dot, q, k, v, keep, monotonic_places(2, 12), window)
        band = (torch.arange(9) - torch.arange(12)[:, None]).abs() <= window
        mask = band & keep.unsqueeze(1)
        theirs = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, mask, scale=1.0
        )
        torch.testing.assert_close(ours, theirs)
        blind = (~mask.any(-1)).sum().item()
        print(f"window {window:2}: equal, {blind} of 24 queries see nothing")


# --8<-- [end:window-equals-mask]


def three_of(B, T, S, size=4, dtype=torch.float64):
    """Return queries, keys and values of one size."""
    return [torch.randn(B, n, size, dtype=dtype) for n in (T, S, S)]


@given(
    seed=st.integers(0, 999),
    T=st.integers(1, 6),
    S=st.integers(1, 6),
    window=st.integers(0, 7),
)
def test_near_finds_the_keys_of_the_window(seed, T, S, window):
    """Any place, also between positions, on them, and outside the source."""
    torch.manual_seed(seed)
    place, keep = 10 * torch.rand(2, T) - 2, torch.rand(2, S) < 0.7
    place[0] = place[0].round()
    index, inside = near(place, keep, window)
    assert index.shape == inside.shape == (2, T, 2 * window + 1)
    assert index.min() >= 0
    assert index.max() < S
    for b in range(2):
        for t in range(T):
            p = place[b, t].item()
            expected = [s for s in range(S) if keep[b, s] and abs(s - p) <= window]
            assert index[b, t][inside[b, t]].tolist() == expected


@given(seed=st.integers(0, 999), T=st.integers(1, 5), S=st.integers(1, 5))
def test_equals_sdpa_on_any_shape(seed, T, S):
    """One token, T > S, no visible key."""
    torch.manual_seed(seed)
    q, k, v = three_of(2, T, S)
    keep = torch.rand(2, S) < 0.6
    expected = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, keep.unsqueeze(1), scale=1.0
    )
    out, weight = attend_globally(dot, q, k, v, keep)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(weight.sum(-1)[:, 0], keep.any(1).double())
    assert not weight.masked_select(~keep.unsqueeze(1)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1.0, 60.0])
def test_every_dtype(dtype, size):
    """Outputs and gradients as exact as SDPA's, scores up to 1e4 too; also in a window."""
    keep = torch.arange(9) < torch.tensor([[9], [5]])
    x = [size * one for one in three_of(2, 4, 9, 6, torch.float32)]
    band = (torch.arange(9) - torch.arange(4)[:, None]).abs() <= 2
    place = monotonic_places(2, 4)
    for ours, mask in (
        (lambda *x: attend_globally(dot, *x, keep)[0], keep.unsqueeze(1)),
        (
            lambda *x: attend_near(dot, *x, keep, place, 2)[0],
            keep.unsqueeze(1) & band,
        ),
    ):
        results = []
        for call, kind in (
            (ours, dtype),
            (
                partial(
                    torch.nn.functional.scaled_dot_product_attention,
                    attn_mask=mask,
                    scale=1.0,
                ),
                dtype,
            ),
            (
                partial(
                    torch.nn.functional.scaled_dot_product_attention,
                    attn_mask=mask,
                    scale=1.0,
                ),
                torch.float64,
            ),
        ):
            leaves = [one.to(dtype).to(kind).requires_grad_() for one in x]
            out = call(*leaves)
            grads = torch.autograd.grad(out.sum(), leaves[2])
            results.append([out, *grads])
        assert results[0][0].dtype == dtype
        for mine, theirs, exact in zip(*results, strict=True):
            assert largest_error(mine, exact) <= error_budget(theirs, exact)


def test_gaussian_keeps_the_dtype_and_fades():
    """exp(−d²/2σ²): 1 at the place, exp(−1/2) one sigma away."""
    q, k = torch.zeros(1, 1, 4), torch.zeros(1, 5, 4)
    place, keep = torch.tensor([[2.0]]), torch.ones(1, 5, dtype=torch.bool)
    for dtype in (torch.float16, torch.float32):
        args = (q.to(dtype), k.to(dtype), k.to(dtype), keep, place, 2, 2.0)
        out, weight = attend_near(dot, *args)
        assert out.dtype == weight.dtype == dtype
        away = torch.tensor([-2, -1, 0, 1, 2])
        expected = (torch.exp(-(away**2) / 8) / 5).to(dtype)
        torch.testing.assert_close(weight[0, 0], expected)


@pytest.mark.parametrize("filler", [math.nan, math.inf])
def test_padding_may_hold_anything(filler):
    """Neither outputs nor gradients, W included, notice what is in the padding."""
    q, k, v = three_of(2, 4, 9)
    keep = torch.arange(9).expand(2, 9) < 6
    weight = torch.randn(4, 4).double().requires_grad_()
    out_weight, place_weight = torch.randn(8).double(), torch.randn(8, 4).double()
    score = partial(general, weight_DK=weight)
    place = predicted_places(q, keep, place_weight, out_weight)
    short = predicted_places(q, keep[:, :6], place_weight, out_weight)
    torch.testing.assert_close(place, short)
    calls = (
        lambda k, v, keep: attend_globally(score, q, k, v, keep)[0],
        lambda k, v, keep: attend_near(score, q, k, v, keep, place, 3, 1.5)[0],
    )
    for call in calls:
        expected = call(k[:, :6], v[:, :6], keep[:, :6])
        bad_k, bad_v = (x.masked_fill(~keep.unsqueeze(-1), filler) for x in (k, v))
        bad_k.requires_grad_()
        out = call(bad_k, bad_v, keep)
        torch.testing.assert_close(out, expected)
        grads = torch.autograd.grad(out.sum(), (weight, bad_k))
        assert all(one.isfinite().all() for one in grads)


def test_keys_outside_the_window_are_never_read():
    """NaN outside the window stays there."""
    q, k, v = three_of(1, 3, 9)
    k[:, 6:], v[:, 6:] = math.nan, math.nan
    keep = torch.ones(1, 9, dtype=torch.bool)
    out, _ = attend_near(dot, q, k, v, keep, monotonic_places(1, 3), 3)
    assert out.isfinite().all()


def test_source_without_keys_gives_zeros():
    """No NaN, and zero gradients."""
    q, k, v = three_of(1, 3, 5)
    q.requires_grad_()
    keep = torch.zeros(1, 5, dtype=torch.bool)
    for out, weight in (
        attend_globally(dot, q, k, v, keep),
        attend_near(dot, q, k, v, keep, monotonic_places(1, 3), 1),
    ):
        assert not out.any()
        assert not weight.any()
        (grad,) = torch.autograd.grad(out.sum(), q)
        assert not grad.any()


def test_kit():
    """Averages of values; samples apart; gradients reach everything that is learned."""
    q, k, _ = three_of(1, 3, 5)
    keep, place = torch.ones(1, 5, dtype=torch.bool), monotonic_places(1, 3)
    for f in (
        lambda v: attend_globally(dot, q, k, v, keep)[0],
        lambda v: attend_near(dot, q, k, v, keep, place, 1)[0][:, :, :2],
    ):
        hold(lambda draw, f=f: convexity(f, draw.normal(1, 5, 4)[..., :2], draw))

    def many(k):
        B = len(k)
        kept = keep.expand(B, 5)
        return attend_near(
            dot, q.expand(B, 3, 4), k, k, kept, place.expand(B, 3), 1, 0.5
        )[0]

    hold(lambda draw: batch_independence(many, draw.normal(3, 5, 4), draw))

    def all_of(q, k, v, weight, weight_r, out_r):
        place = predicted_places(q, keep, weight_r, out_r)
        score = partial(general, weight_DK=weight)
        return attend_near(score, q, k, v, keep, place, 3, 1.5)[0]

    shapes = ((1, 3, 4), (1, 5, 6), (1, 5, 2), (4, 6), (8, 4), (8,))
    gradient_flow(all_of, *(torch.randn(shape).double() for shape in shapes))


def test_gradcheck():
    """Gradients agree with finite differences, away from the edges of the window."""
    q, k, v = three_of(1, 2, 5, 3)
    keep = torch.ones(1, 5, dtype=torch.bool)
    weight, out_r = torch.randn(4, 6).double(), torch.randn(4).double()
    place = torch.tensor([[1.3, 2.6]]).double()

    def f(q, k, v, weight, out_r, place):
        score = partial(concat, weight_RF=weight, out_R=out_r)
        return attend_near(score, q, k, v, keep, place, 1, 0.5)[0]

    inputs = [one.requires_grad_() for one in (q, k, v, weight, out_r, place)]
    assert torch.autograd.gradcheck(f, inputs)


def test_places():
    """local-m: p_t = t; local-p: from 0 to the length without padding, float32 at least."""
    assert monotonic_places(2, 3).tolist() == [[0, 1, 2]] * 2
    assert monotonic_places(2, 3).dtype == torch.float32
    q, keep = torch.zeros(2, 1, 4), torch.arange(9) < torch.tensor([[9], [4]])
    weight, out = torch.randn(8, 4), torch.randn(8)
    assert predicted_places(q, keep, weight, out).tolist() == [[4.5], [2.0]]
    q = torch.randn(2, 5, 4)
    hidden = torch.tanh(torch.einsum("BTD,RD->BTR", q, weight))
    expected = torch.tensor([[9.0], [4.0]]) / (1 + torch.exp(-(hidden * out).sum(-1)))
    torch.testing.assert_close(predicted_places(q, keep, weight, out), expected)
    half = predicted_places(
        *(x.bfloat16() for x in (q,)), keep, weight.bfloat16(), out.bfloat16()
    )
    assert half.dtype == torch.float32
    assert (
        predicted_places(q.double(), keep, weight.double(), out.double()).dtype
        == torch.float64
    )


def test_attentional_state():
    """The tanh of W over the concatenation, context first."""
    out, q, weight = torch.randn(2, 3, 5), torch.randn(2, 3, 4), torch.randn(4, 9)
    expected = torch.tanh(
        torch.einsum("BTV,DV->BTD", out, weight[:, :5])
        + torch.einsum("BTE,DE->BTD", q, weight[:, 5:])
    )
    torch.testing.assert_close(attentional_state(out, q, weight), expected)


def test_work_and_layout():
    """4·T·S·K for all keys, 4·T·W·K for a window; strides do not matter."""
    assert flops_of(100, None) == 4 * 100 * 100 * 64
    assert flops_of(100, 10) == 4 * 100 * 21 * 64
    q, k, v = three_of(2, 4, 9)
    keep = (torch.rand(9, 2) < 0.7).mT
    loose = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (q, k, v)]
    for call in (
        lambda *x: attend_globally(dot, *x, keep)[0],
        lambda *x: attend_near(dot, *x, keep, monotonic_places(2, 4), 2)[0],
    ):
        torch.testing.assert_close(call(*loose), call(q, k, v))


def test_bad_input_is_named():
    """What came and what was expected."""
    q, k, v = three_of(2, 3, 5)
    keep, place = torch.ones(2, 5, dtype=torch.bool), monotonic_places(2, 3)
    near_ = partial(attend_near, place_BT=place, window=1)
    for call in (attend_globally, near_):
        for args, message in (
            ((q[0], k, v, keep), r"^query has shape \(3, 4\), expected 3 axes$"),
            ((q, k[0], v, keep), r"^key has shape \(5, 4\), expected 3 axes$"),
            ((q, k, v[0], keep), r"^value has shape \(5, 4\), expected 3 axes$"),
            (
                (q[:1], k, v, keep),
                r"^query has shape \(1, 3, 4\), expected \(2, 3, 4\)$",
            ),
            (
                (q, k, v[:, :4], keep),
                r"^value has shape \(2, 4, 4\), expected \(2, 5, 4\)$",
            ),
            ((q, k, v, keep[:, :4]), r"^keep has shape \(2, 4\), expected \(2, 5\)$"),
            ((q, k, v, keep.int()), r"^keep has torch\.int32, expected torch\.bool$"),
        ):
            with pytest.raises(ValueError, match=message):
                call(dot, *args)
    with pytest.raises(
        ValueError, match=r"^query has shape \(2, 3, 2\), expected \(2, 3, 4\)$"
    ):
        dot(q[..., :2], k)
    with pytest.raises(
        ValueError, match=r"^weight has shape \(4, 3\), expected \(4, 4\)$"
    ):
        general(q, k, torch.randn(4, 3))
    with pytest.raises(
        ValueError, match=r"^weight has shape \(6, 7\), expected \(6, 8\)$"
    ):
        concat(q, k, torch.randn(6, 7), torch.randn(6))
    with pytest.raises(
        ValueError, match=r"^weight has shape \(4, 7\), expected \(4, 8\)$"
    ):
        attentional_state(q, q, torch.randn(4, 7))
    with pytest.raises(
        ValueError, match=r"^place has shape \(2, 2\), expected \(2, 3\)$"
    ):
        attend_near(dot, q, k, v, keep, place[:, :2], 1)
    with pytest.raises(ValueError, match=r"^window is -1, expected at least 0$"):
        attend_near(dot, q, k, v, keep, place, -1)
    assert attend_near(dot, q, k, v, keep, place, 0)[0].allclose(v[:, :3])


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.foundations.multiplicative").output
    for line in PRINTED:
        assert line in out


PRINTED = (
    "global  (2, 3, 12) sums ['1.00', '1.00', '1.00']",
    "places ['11.75', '5.03', '1.47'] of 12",
    "local-p (2, 3, 9) sums ['0.67', '1.00', '0.74']",
    "T = S =  256:    16.8 MFLOPs, window   1.4",
    "T = S = 1024:   268.4 MFLOPs, window   5.5",
    "T = S = 4096:  4295.0 MFLOPs, window  22.0",
    "keep: weight on the padding of sample 1 ['0.00', '0.00', '0.00']",
    "no mask: weight on the padding of sample 1 ['0.24', '0.15', '0.00']",
    "tanh: largest entry of the state 1.00",
    "no tanh: largest entry of the state 4.27",
)
