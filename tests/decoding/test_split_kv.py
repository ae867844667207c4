"""Split-KV decoding: PyTorch's kernel with its log-sum-exp as oracle; merge algebra."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st

from snippets.decoding.split_kv import attend_part, merge, split_attend
from snippets.properties.cost import largest_bytes
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import (
    batch_independence,
    chunked_equals_whole,
    convexity,
    gradient_flow,
    no_input_mutated,
)
from tests.running import run_main


def stack(*parts):
    """Stack outputs and log-sum-exps of parts."""
    return [torch.stack(one) for one in zip(*parts, strict=True)]


# --8<-- [start:equals-kernel]
def test_equals_kernel():
    """Output and log-sum-exp equal those of PyTorch's CPU kernel, cut anywhere."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    q, k, v = (torch.randn(2, 4, n, 16, device="cpu") for n in (3, 50, 50))
    theirs, exact = kernel(q, k, v), kernel(q.double(), k.double(), v.double())
    for cuts in ([50], [1, 49], [20, 0, 30], [7] * 7 + [1]):
        pairs = zip(k.split(cuts, dim=2), v.split(cuts, dim=2), strict=True)
        parts = [attend_part(q, k_, v_) for k_, v_ in pairs]
        out, lse = (torch.stack(one) for one in zip(*parts, strict=True))
        for name, ours, peer, right in zip(
            ("out", "lse"), merge(out, lse), theirs, exact, strict=True
        ):
            error, allowed = largest_error(ours, right), error_budget(peer, right, 2)
            assert error <= allowed
            print(f"{len(cuts)} parts, {name}: off by {error:.1e} of {allowed:.1e}")


# --8<-- [end:equals-kernel]


# --8<-- [start:algebra]
def test_merge_is_associative_and_commutative():
    """Any tree of merges in any order gives the same; the empty part is neutral."""
    out, lse = torch.randn(4, 2, 3, 1, 8).double(), 9 * torch.randn(4, 2, 3, 1).double()
    lse[2, 0] = -math.inf  # in the first sample the third part saw nothing
    flat = merge(out, lse)
    order = [2, 0, 3, 1]
    pairs = [merge(out[i : i + 2], lse[i : i + 2]) for i in (0, 2)]
    tree = merge(*(torch.stack(one) for one in zip(*pairs, strict=True)))
    nothing = torch.full_like(out[:1], math.nan), torch.full_like(lse[:1], -math.inf)
    padded = merge(torch.cat([out, nothing[0]]), torch.cat([lse, nothing[1]]))
    for name, other in (
        ("two pairs", tree),
        ("another order", merge(out[order], lse[order])),
        ("with an empty part full of NaN", padded),
    ):
        for a, b in zip(flat, other, strict=True):
            torch.testing.assert_close(a, b)
        print(f"{name}: the same")


# --8<-- [end:algebra]


# --8<-- [start:ragged]
def test_ragged_batch():
    """Sequences of 40, 9 and 0 keys in one batch: whole parts are masked, none is NaN."""
    q, k, v = (
        torch.randn(3, 2, 1, 8),
        torch.randn(3, 2, 40, 8),
        torch.randn(3, 2, 40, 8),
    )
    lengths = (40, 9, 0)
    mask = torch.zeros(3, 2, 1, 40, dtype=torch.bool)
    for b, length in enumerate(lengths):
        mask[b, :, :, :length] = True
        k[b, :, length:] = v[b, :, length:] = math.nan
    out = split_attend(q, k, v, 4, mask)
    for b, length in enumerate(lengths[:2]):
        k_, v_ = k[b, :, :length], v[b, :, :length]
        alone = torch.softmax(q[b] @ k_.mT / math.sqrt(8), dim=-1) @ v_
        torch.testing.assert_close(out[b], alone)
    assert out[2].eq(0).all()
    print("parts seen by each sequence:", [-(-length // 10) for length in lengths])


# --8<-- [end:ragged]


@given(
    seed=st.integers(0, 999),
    T=st.integers(1, 3),
    S=st.integers(0, 9),
    splits=st.integers(1, 12),
    masked=st.booleans(),
)
@example(seed=0, T=2, S=6, splits=3, masked=True)
@example(seed=0, T=1, S=3, splits=5, masked=False)
def test_equals_sdpa_on_any_shape(seed, T, S, splits, masked):
    """More parts than keys, no keys at all, queries that see nothing."""
    torch.manual_seed(seed)
    q, k, v = torch.randn(2, 2, T, 3), torch.randn(2, 2, S, 3), torch.randn(2, 2, S, 4)
    mask = torch.rand(2, 2, T, S) < 0.5 if masked else None
    ours = split_attend(q, k, v, splits, mask)
    if S == 0:
        assert ours.shape == (2, 2, T, 4)
        assert ours.eq(0).all()
        return
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), mask)
    peer = F.scaled_dot_product_attention(q, k, v, mask)
    assert largest_error(ours, exact) <= error_budget(peer, exact, factor=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_error_in_every_dtype(dtype):
    """Partial results in float32, the result in the dtype of the query."""
    q, k, v = (torch.randn(2, 2, n, 16).to(dtype) for n in (2, 77, 77))
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    peer = F.scaled_dot_product_attention(q, k, v)
    ours = split_attend(q, k, v, 5)
    assert ours.dtype == dtype
    assert largest_error(ours, exact) <= error_budget(peer, exact, factor=2)
    out, lse = attend_part(q, k, v)
    assert out.dtype == lse.dtype == torch.float32
    assert attend_part(q.double(), k.double(), v.double())[1].dtype == torch.float64


def test_properties():
    """The number of parts does not matter; averages; samples apart; gradients arrive."""

    def attend(x, splits=3):
        return split_attend(x, x, x, splits)

    def values(draw):
        q, k = draw.normal(1, 2, 2, 4), draw.normal(1, 2, 7, 4)
        return lambda v: split_attend(q, k, v, 3)

    def x(draw):
        return draw.normal(2, 2, draw.size("S", 1, 8), 4)

    hold(
        lambda draw: chunked_equals_whole(
            lambda x: attend(x, 1), attend, x(draw), draw, 2
        )
    )
    hold(lambda draw: convexity(values(draw), torch.randn(1, 2, 7, 3), draw))
    hold(lambda draw: batch_independence(attend, x(draw), draw))
    qkv = [torch.randn(1, 2, n, 4) for n in (2, 9, 9)]
    gradient_flow(lambda q, k, v: split_attend(q, k, v, 4), *qkv)
    no_input_mutated(lambda q, k, v: split_attend(q, k, v, 4), *qkv)


def test_huge_log_sum_exps():
    """±1e4 neither overflows nor vanishes, alone or beside each other."""
    out = torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1, 1)
    for a, b, expected in (
        (1e4, 1e4, 2.0),
        (-1e4, -1e4, 2.0),
        (1e4, -1e4, 1.0),
        (-1e4, -math.inf, 1.0),
        (-math.inf, 1e4, 3.0),
    ):
        merged, lse = merge(out, torch.tensor([a, b]).reshape(2, 1, 1, 1))
        assert merged.item() == expected
        assert lse.item() == pytest.approx(max(a, b) + math.log(2) * (a == b))
    q = torch.full((1, 1, 1, 1), 100.0)
    k = torch.tensor([-100.0, 100.0, 99.0]).reshape(1, 1, 3, 1)
    v = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
    for splits in (1, 2, 3):
        assert split_attend(q, k, v, splits).item() == 2.0
    assert attend_part(q, k, v)[1].item() == pytest.approx(1e4)


def test_nothing_seen():
    """No keys, or all masked: zeros and -inf, after the merge, too."""
    q, k = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 5, 4)
    mask = torch.zeros(1, 2, 3, 5, dtype=torch.bool)
    empty = attend_part(q, k[:, :, :0], k[:, :, :0])
    masked = attend_part(q, k, k, mask)
    for out, lse in (empty, masked, merge(*stack(empty, masked))):
        assert out.eq(0).all()
        assert lse.eq(-math.inf).all()
        assert out.shape == (1, 2, 3, 4)
        assert lse.shape == (1, 2, 3)


def test_nan_behind_the_mask_does_not_leak():
    """Neither into outputs nor into gradients; nor from an output with lse -inf."""
    q, k, v = (torch.randn(1, 2, n, 4) for n in (3, 6, 6))
    mask = torch.ones(1, 2, 3, 6, dtype=torch.bool)
    mask[..., 2:4] = False
    mask[:, :, 1] = False
    clean = F.scaled_dot_product_attention(q, k, v, mask)
    q[:, :, 1] = math.nan
    for bad in (math.nan, math.inf):
        k[:, :, 2:4] = v[:, :, 2:4] = bad
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        for splits in (1, 3):  # the second of three parts is empty
            out = split_attend(*leaves, splits, mask)
            torch.testing.assert_close(out, clean)
            grads = torch.autograd.grad(out.square().sum(), leaves)
            assert all(grad.isfinite().all() for grad in grads)
    # Merged twice, with a query that saw nothing in the first: still no NaN.
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    first = attend_part(
        leaves[0], leaves[1][:, :, 2:3], leaves[2][:, :, 2:3], mask[..., 2:3]
    )
    second = attend_part(
        leaves[0], leaves[1][:, :, 3:4], leaves[2][:, :, 3:4], mask[..., 3:4]
    )
    third = attend_part(
        leaves[0], leaves[1][:, :, 4:], leaves[2][:, :, 4:], mask[..., 4:]
    )
    out, lse = merge(*stack(merge(*stack(first, second)), third))
    grads = torch.autograd.grad(
        out.sum() + lse.masked_fill(lse.isinf(), 0).sum(), leaves
    )
    assert all(grad.isfinite().all() for grad in grads)


def test_gradients_equal_sdpas():
    """Through the merge, and through the log-sum-exp that it returns."""
    leaves = [torch.randn(1, 2, n, 4, dtype=torch.float64) for n in (2, 7, 7)]
    for x in leaves:
        x.requires_grad_()
    ours = split_attend(*leaves, 3).square().sum()
    theirs = F.scaled_dot_product_attention(*leaves).square().sum()
    for a, b in zip(
        torch.autograd.grad(ours, leaves),
        torch.autograd.grad(theirs, leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b)

    def both(q, k, v):
        return merge(
            *stack(
                attend_part(q, k[:, :, :3], v[:, :, :3]),
                attend_part(q, k[:, :, 3:], v[:, :, 3:]),
            )
        )

    assert torch.autograd.gradcheck(both, leaves)


def test_parts_are_small():
    """No tensor holds the scores of all keys."""
    q, k = torch.randn(1, 1, 64, 4), torch.randn(1, 1, 1024, 4)
    sizes = [largest_bytes(lambda n=n: split_attend(q, k, k, n)) for n in (1, 4)]
    assert sizes == [4 * 64 * 1024, 4 * 64 * 256]


def test_not_contiguous():
    """Transposed and expanded inputs give the same."""
    q = torch.randn(2, 1, 3, 4).transpose(1, 2)
    k = torch.randn(1, 1, 9, 4).expand(2, 3, 9, 4)
    expected = F.scaled_dot_product_attention(q, k, k)
    torch.testing.assert_close(split_attend(q, k, k, 4), expected)


def test_bad_input_is_named():
    """What came and what was expected."""
    x = torch.randn(1, 2, 5, 4)
    with pytest.raises(ValueError, match=r"^splits is 0, expected at least 1$"):
        split_attend(x, x, x, 0)
    split_attend(x, x, x, 1)
    for call in (lambda k: split_attend(x, k, x, 2), lambda k: attend_part(x, k, x)):
        with pytest.raises(ValueError, match="key has size 3, query has size 4: they"):
            call(x[..., :3])
    with pytest.raises(ValueError, match=r"mask has shape \(1, 2, 5, 4\), expected"):
        split_attend(x, x, x, 2, torch.ones(1, 2, 5, 4, dtype=torch.bool))
    out, lse = torch.randn(3, 1, 2, 5, 4), torch.randn(3, 1, 2, 5)
    with pytest.raises(
        ValueError,
        match=r"^out has shape \(1, 2, 5, 4\), expected 5 axes and at least one part$",
    ):
        merge(out[0], lse[0])
    with pytest.raises(ValueError, match=r"^out has shape \(0, 1, 2, 5, 4\), expected"):
        merge(out[:0], lse[:0])
    with pytest.raises(
        ValueError, match=r"^lse has shape \(2, 1, 2, 5\), expected \(3, 1, 2, 5\)$"
    ):
        merge(out, lse[:2])


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.decoding.split_kv").output
    assert "16 parts: 1.008 times the FLOPs, 128 pieces of work" in out
    assert "32.5 KiB of partial results" in out
    assert "keys and values to be read: 4000 KiB" in out
    assert "plain average        : off by 2e-01" in out
    assert "by number of keys    : off by 1e-02" in out
    assert "lse   100.0: tensor([nan, nan]), shifted tensor([0.7311, 0.2689])" in out
    assert "two empty parts, softmax of lse: tensor([nan, nan])" in out
    assert "lse -inf: 1.00 of the output" in out
    assert "lse  0.0: 0.14 of the output" in out
    assert "lse  inf: nan of the output" in out
    assert "all keys masked, lse: [0.0, 0.0, 0.0]" in out
    assert "lse in base 2, merged with base e: off by 4e-02" in out
