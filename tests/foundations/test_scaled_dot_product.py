"""Scaled dot-product attention: oracles, properties, and the bugs people had."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from snippets.foundations.scaled_dot_product import (
    attend,
    masked_softmax,
    query_gradients,
    weigh,
)
from snippets.properties.error_budget import error_budget, largest_error
from tests.running import run_main


def draw(seed, B=2, H=2, T=5, S=7, K=4, V=3, dtype=torch.float64):
    """Return random q, k, v and a mask in which each query may see some key."""
    torch.manual_seed(seed)
    q, k, v = torch.randn(B, H, T, K), torch.randn(B, H, S, K), torch.randn(B, H, S, V)
    mask = torch.rand(B, H, T, S) < 0.6
    mask[..., 0] = True
    return q.to(dtype), k.to(dtype), v.to(dtype), mask


def test_equals_loops():
    """The formula, one number at a time, in float64."""
    q, k, v = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5, 2)
    mask = torch.rand(3, 5) < 0.7
    mask[:, 0] = True
    exact = torch.zeros(3, 2, dtype=torch.float64)
    for t in range(3):
        seen = [s for s in range(5) if mask[t, s]]
        exps = [
            math.exp(sum(q[t, i].item() * k[s, i].item() for i in range(4)) / 2)
            for s in seen
        ]
        for s, e in zip(seen, exps, strict=True):
            exact[t] += e / sum(exps) * v[s].double()
    out = attend(q[None, None], k[None, None], v[None, None], mask[None, None])[0, 0]
    peer = F.scaled_dot_product_attention(q[None], k[None], v[None], mask[None])[0]
    error, allowed = largest_error(out, exact), error_budget(peer, exact)
    assert error <= allowed
    print(f"largest error {error:.1e}, allowed {allowed:.1e}")


# --8<-- [start:equals-sdpa]
def test_equals_sdpa():
    """Equal to PyTorch's own attention in three dtypes, with more keys than queries."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        sizes = ((33, 64), (57, 64), (57, 16))
        q, k, v = (torch.randn(2, 4, *size).to(dtype) for size in sizes)
        mask = torch.rand(2, 4, 33, 57) < 0.7
        mask[0, 0, 0] = False  # this query sees nothing
        peer = F.scaled_dot_product_attention(q, k, v, mask)
        exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), mask)
        out = attend(q, k, v, mask)
        assert out[0, 0, 0].eq(0).all()
        error, allowed = largest_error(out, exact), error_budget(peer, exact)
        assert error <= allowed
        print(f"{dtype}: largest error {error:.1e}, allowed {allowed:.1e}")


# --8<-- [end:equals-sdpa]


def test_future_changes_nothing():
    """Under a causal mask, new keys and values at the end leave the past bit for bit."""
    q, k, v = (torch.randn(1, 2, 8, 16) for _ in range(3))
    mask = torch.ones(1, 2, 8, 8, dtype=torch.bool).tril()
    before = attend(q, k, v, mask)
    k[:, :, 5:], v[:, :, 5:] = torch.randn(2, 1, 2, 3, 16)
    after = attend(q, k, v, mask)
    assert before[:, :, :5].equal(after[:, :, :5])
    assert not before[:, :, 5:].isclose(after[:, :, 5:]).any()


# --8<-- [start:nothing-leaks]
def test_nothing_leaks():
    """NaN and Inf behind the mask change neither the output nor a gradient."""
    mask = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()
    mask[..., 4:], mask[:, :, 2] = False, False  # two keys of padding, a blind query
    clean = [torch.randn(1, 1, 6, 8) for _ in range(3)]
    q, k, v = dirty = [x.clone() for x in clean]
    q[:, :, 2], k[:, :, 4:] = -math.inf, math.nan
    v[:, :, 4], v[:, :, 5] = math.inf, math.nan
    results = []
    for inputs in (clean, dirty):
        out = attend(*(x.requires_grad_() for x in inputs), mask)
        results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    torch.testing.assert_close(*results)
    theirs = F.scaled_dot_product_attention(*dirty, mask)
    print(f"NaN: ours {out.isnan().sum()}, PyTorch {theirs.isnan().sum()}")


# --8<-- [end:nothing-leaks]

shapes = {
    "seed": st.integers(0, 999),
    "B": st.integers(1, 2),
    "H": st.integers(1, 3),
    "T": st.integers(1, 6),
    "S": st.integers(1, 6),
    "K": st.integers(1, 9),
    "V": st.integers(1, 4),
}


@given(**shapes)
def test_agrees_with_sdpa_on_any_shape(**sizes):
    """One token, T ≠ S, sizes without a nice root."""
    q, k, v, mask = draw(**sizes, dtype=torch.float32)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), mask)
    peer = F.scaled_dot_product_attention(q, k, v, mask)
    assert largest_error(attend(q, k, v, mask), exact) <= error_budget(peer, exact)


@given(**shapes)
def test_rows_sum_to_one(**sizes):
    """Weights are at least 0, exactly 0 where hidden, and sum to 1."""
    q, k, _, mask = draw(**sizes)
    weight = masked_softmax(q @ k.mT, mask)
    assert weight.ge(0).all()
    assert weight[~mask].eq(0).all()
    torch.testing.assert_close(weight.sum(-1), torch.ones(q.shape[:3]).double())


@given(**shapes)
def test_order_of_keys_does_not_matter(**sizes):
    """Keys, values and mask permuted together give the same output."""
    q, k, v, mask = draw(**sizes)
    order = torch.randperm(k.shape[2])
    moved = attend(q, k[:, :, order], v[:, :, order], mask[..., order])
    torch.testing.assert_close(moved, attend(q, k, v, mask))


@given(**shapes)
def test_stays_between_the_values(**sizes):
    """Each output lies in the box spanned by the values, so also in their hull's box."""
    q, k, v, _ = draw(**sizes)
    out = attend(q, k, v)
    slack = 4 * torch.finfo(v.dtype).eps * v.abs().max()
    assert (out <= v.amax(2, keepdim=True) + slack).all()
    assert (out >= v.amin(2, keepdim=True) - slack).all()


@given(**shapes)
def test_a_constant_added_to_the_scores_of_a_row_changes_nothing(**sizes):
    """Softmax is invariant to a shift per row."""
    q, k, _, mask = draw(**sizes)
    score = q @ k.mT
    shifted = score + torch.randn(*q.shape[:3], 1) * 50
    torch.testing.assert_close(
        masked_softmax(shifted, mask), masked_softmax(score, mask)
    )


def test_a_key_orthogonal_shift_of_all_keys_changes_nothing():
    """A vector added to all keys adds one constant to a query's scores."""
    q, k, v, mask = draw(0)
    moved = attend(q, k + torch.randn(4).double(), v, mask)
    torch.testing.assert_close(moved, attend(q, k, v, mask))


def test_linear_in_the_values():
    """Given queries and keys, the output is a linear map of the values."""
    q, k, v, mask = draw(0)
    _, _, w, _ = draw(1)
    both = attend(q, k, 2 * v - 3 * w, mask)
    torch.testing.assert_close(
        both, 2 * attend(q, k, v, mask) - 3 * attend(q, k, w, mask)
    )


def test_one_key_returns_its_value():
    """With one key there is nothing to choose."""
    q, k, v, _ = draw(0, S=1)
    torch.testing.assert_close(attend(q, k, v), v.expand(2, 2, 5, 3))


def test_hidden_keys_are_as_good_as_absent():
    """A padded batch equals the unpadded sequence."""
    q, k, v, _ = draw(0)
    mask = torch.ones(2, 2, 5, 7, dtype=torch.bool)
    mask[..., 4:] = False
    short = attend(q, k[:, :, :4], v[:, :, :4])
    torch.testing.assert_close(attend(q, k, v, mask), short)


def test_huge_scores_pick_the_best_key():
    """No overflow: the limit of large scores is a lookup."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        q = torch.tensor([[100.0, 0.0]], dtype=dtype).expand(1, 1, 1, 2)
        k = torch.tensor([[90.0, 0.0], [-90.0, 0.0]], dtype=dtype).expand(1, 1, 2, 2)
        v = torch.tensor([[3.0], [7.0]], dtype=dtype).expand(1, 1, 2, 1)
        assert attend(q, k, v).item() == 3
        assert attend(-q, k, v).item() == 7


def test_float16_survives_a_product_that_overflows():
    """32 · 32 · 128 = 131072 is beyond float16; its scaled value is not."""
    q = torch.full((1, 1, 1, 128), 32.0, dtype=torch.float16)
    k = torch.cat([q, q * 0.5], dim=2)
    v = torch.tensor([[1.0], [2.0]], dtype=torch.float16).expand(1, 1, 2, 1)
    assert attend(q, k, v).item() == 1


def test_takes_what_is_not_contiguous_and_leaves_inputs_alone():
    """Transposed and expanded inputs give what their copies give."""
    q, k, v, mask = draw(0)
    views = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    row = mask[:, :1, :1].expand(2, 2, 5, 7)
    copies = [x.clone() for x in (*views, row)]
    out = attend(*views, row)
    assert not views[0].is_contiguous()
    assert out.equal(attend(q, k, v, row.contiguous()))
    assert all(a.equal(b) for a, b in zip((*views, row), copies, strict=True))


def test_gradcheck():
    """Gradients agree with finite differences, a blind query included."""
    q, k, v, mask = draw(0, B=1, T=3, S=4)
    mask[0, 0, 1] = False
    inputs = [x.requires_grad_() for x in (q, k, v)]
    assert torch.autograd.gradcheck(lambda *x: attend(*x, mask), inputs)
    assert torch.autograd.gradcheck(lambda *x: attend(*x), inputs)


def test_gradients_of_a_blind_query_make_no_nan_on_the_way():
    """Anomaly mode finds no NaN in any step of the backward pass."""
    q, k, v, mask = draw(0)
    mask[:, :, 1] = False
    q.requires_grad_()
    with torch.autograd.set_detect_anomaly(True, check_nan=True):
        attend(q, k, v, mask).sum().backward()
    assert q.grad[:, :, 1].eq(0).all()


def test_a_visible_nan_is_not_hidden():
    """What a query may see it does see: NaN and Inf stay."""
    q, k, v, _ = draw(0)
    v[:, :, 2, 0], v[:, :, 3, 1] = math.nan, math.inf
    out = attend(q, k, v)
    assert out[..., 0].isnan().all()
    assert out[..., 1].eq(math.inf).all()
    assert out[..., 2].isfinite().all()


def test_nan_scores_behind_the_mask_stay_there():
    """`masked_softmax` replaces hidden scores; it does not add to them."""
    score = torch.randn(1, 1, 2, 4)
    mask = torch.tensor([[True, True, False, False], [False] * 4]).expand(1, 1, 2, 4)
    clean = masked_softmax(score, mask)
    score[..., 2], score[..., 3], score[..., 1, :] = math.nan, math.inf, math.nan
    assert masked_softmax(score, mask).equal(clean)


def test_a_hidden_key_loses_even_to_a_terrible_one():
    """However low the visible scores, hidden ones get nothing: the fill is -∞."""
    score = torch.tensor([-1e5, -1e5, 0.0]).expand(1, 1, 1, 3)
    mask = torch.tensor([True, True, False]).expand(1, 1, 1, 3)
    assert masked_softmax(score, mask)[0, 0, 0].tolist() == [0.5, 0.5, 0.0]
    lowest = torch.finfo(torch.float32).min
    assert masked_softmax(score + lowest, mask)[0, 0, 0].tolist() == [0.5, 0.5, 0.0]


def test_weigh_keeps_out_what_has_no_weight():
    """Exact zeros keep out NaN, per query; gradients stay finite."""
    weight = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]]).expand(1, 1, 2, 3)
    weight = weight.clone().requires_grad_()
    v = torch.tensor([[4.0], [8.0], [math.nan]]).expand(1, 1, 3, 1)
    out = weigh(weight, v)
    assert out[0, 0, 0].item() == 7
    assert out[0, 0, 1].isnan()
    out[0, 0, 0].sum().backward()
    assert weight.grad[0, 0, 0].tolist() == [4, 8, 0]


def test_no_keys_gives_zeros():
    """Nothing to see for anyone."""
    out = attend(
        torch.randn(1, 1, 2, 4), torch.randn(1, 1, 0, 4), torch.randn(1, 1, 0, 3)
    )
    assert out.shape == (1, 1, 2, 3)
    assert out.eq(0).all()


BAD = {
    "query has shape (2, 2, 5), expected 4 axes": lambda q, k, v, m: (
        q[..., 0],
        k,
        v,
        m,
    ),
    "key has batch and heads (1, 2), query has batch and heads (2, 2): they must agree": (
        lambda q, k, v, m: (q, k[:1], v, m)
    ),
    "value has batch and heads (2, 1), query has batch and heads (2, 2)": (
        lambda q, k, v, m: (q, k, v[:, :1], m)
    ),
    "key has size 3, query has size 4: they must agree": (
        lambda q, k, v, m: (q, k[..., :3], v, m)
    ),
    "value has positions 6, key has positions 7": lambda q, k, v, m: (
        q,
        k,
        v[:, :, :6],
        m,
    ),
    "mask has torch.float64, expected torch.bool": (
        lambda q, k, v, m: (q, k, v, m.double())
    ),
    "mask has shape (5, 7), expected (2, 2, 5, 7)": lambda q, k, v, m: (
        q,
        k,
        v,
        m[0, 0],
    ),
    "mask has shape (2, 1, 5, 7), expected (2, 2, 5, 7)": (
        lambda q, k, v, m: (q, k, v, m[:, :1])
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    """A ValueError says which argument, what came and what was expected."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        attend(*BAD[message](*draw(0)))
    assert message in str(caught.value)


def test_saturation_begins_late():
    """Unscaled, the gradient at a query is larger at K = 64 and gone at K = 4096."""
    variance, at_small = query_gradients(64, 1.0)
    assert variance == pytest.approx(64, rel=0.1)
    variance, scaled = query_gradients(64, 64**-0.5)
    assert variance == pytest.approx(1, rel=0.1)
    _, at_large = query_gradients(4096, 1.0)
    assert at_small.median() > 5 * scaled.median()
    assert at_large.median() < 1e-4
    assert at_large.mean() > 1


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.foundations.scaled_dot_product").output
    assert "first query returns the first value: True" in out
    assert "T = S = 2048: 1073.7 MFLOPs" in out
    assert "bfloat16: 16 KiB per token, layer" in out
    assert "naive:  [nan, nan, nan, nan, nan, nan]" in out
    assert "masked: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]" in out
    assert "scaled after the product: inf, weight nan" in out
    assert "scaled before: 11584.0, weight 1.0" in out
    assert "is_causal=True returns the first value: True" in out
    assert (
        "sums of columns: tensor([1.0000, 1.0000, 1.0000, 1.0000, 1.0000, 1.0000]"
        in out
    )
    if not torch.cuda.is_available():  # other random numbers there
        assert (
            "  64       62.4    1.00 |          9.0e-01  1.5e+00         1.3e-01" in out
        )
        assert "1024     1029.8    0.99 |          1.5e-02  2.0e+00" in out
        assert "weight of the first query on its future: 0.83" in out
