"""Chunked attention: SDPA as oracle, forward and gradients; chunks; memory; work."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from snippets.efficient.chunked import chunked_attention, merge, summarize
from snippets.properties.cost import count_flops, exponent, largest_bytes, peak_bytes
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import agreement, no_input_mutated
from tests.running import run_main


# --8<-- [start:equals-sdpa]
def test_equals_sdpa():
    """Output and gradients equal PyTorch's, in three dtypes, with a mask."""
    exact = [torch.randn(2, 3, n, 16).double() for n in (37, 50, 50)]
    mask, upstream = torch.rand(2, 3, 37, 50) < 0.6, torch.randn(2, 3, 37, 16)
    mask[..., 0] = True

    def run(f, dtype):
        leaves = [x.to(dtype).requires_grad_() for x in exact]
        out = f(*leaves)
        return [out, *torch.autograd.grad(out, leaves, upstream.to(dtype))]

    def ours(q, k, v):
        return chunked_attention(q, k, v, mask, 16, 12)

    def theirs(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, mask)

    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        exact = [x.to(dtype).double() for x in exact]
        upstream = upstream.to(dtype)
        fine = run(theirs, torch.float64)
        for name, a, b, c in zip(
            ("out", "dQ", "dK", "dV"), run(ours, dtype), run(theirs, dtype), fine,
            strict=True,
        ):  # fmt: skip
            assert a.dtype == dtype
            assert largest_error(a, c) <= error_budget(b, c, factor=2), (dtype, name)
        print(f"{dtype}: largest error of dV {largest_error(a, c):.1e}")


# --8<-- [end:equals-sdpa]


# --8<-- [start:any-chunks]
def test_any_chunks():
    """Whatever the chunks, the lengths and the mask: chunked equals whole."""

    def property_(draw):
        T, S = draw.size("T", 1, 6), draw.size("S", 1, 7)
        q, k, v = (
            draw.normal(2, 2, T, 3),
            draw.normal(2, 2, S, 3),
            draw.normal(2, 2, S, 2),
        )
        mask = draw.mask(2, 2, T, S, share=draw.choice("share", [1.0, 0.5, 0.2]))
        leaves = [x.requires_grad_() for x in (q, k, v)]
        out = chunked_attention(
            *leaves, mask, draw.size("query chunk", 1, 8), draw.size("key chunk", 1, 9)
        )
        expected = F.scaled_dot_product_attention(*leaves, mask)
        expected = torch.where(mask.any(3, keepdim=True), expected, 0.0)
        agreement(out, expected, "the output")
        weight = draw.normal(*out.shape)
        for name, a, b in zip(
            "qkv",
            torch.autograd.grad((out * weight).sum(), leaves),
            torch.autograd.grad((expected * weight).sum(), leaves),
            strict=True,
        ):
            agreement(a, b, f"the gradient of {name}")

    hold(property_)
    print("chunked equals whole")


# --8<-- [end:any-chunks]


def test_no_square():
    """No T × S tensor is made; peak memory grows with T, not with T²."""
    lengths, peaks = [256, 512], []
    for length in lengths:
        x = torch.randn(1, 1, length, 16, requires_grad=True)
        with torch.no_grad():
            largest = largest_bytes(lambda x=x: chunked_attention(x, x, x))
        assert largest == max(128 * 128, length * 16) * 4
        peaks.append(
            peak_bytes(lambda x=x: chunked_attention(x, x, x).sum().backward())
        )
    assert exponent(lengths, peaks) < 1.1
    print(f"with backward, peak bytes grow as T^{exponent(lengths, peaks):.2f}")


def test_gradcheck():
    """Gradients agree with finite differences, through the recomputation."""
    q, k, v = (torch.randn(1, 2, n, 3).double().requires_grad_() for n in (3, 4, 4))
    mask = torch.rand(1, 2, 3, 4) < 0.7
    f = lambda q, k, v: chunked_attention(q, k, v, mask, 2, 3)  # noqa: E731
    assert torch.autograd.gradcheck(f, (q, k, v))


@given(
    seed=st.integers(0, 999),
    T=st.integers(1, 5),
    S=st.integers(1, 5),
    size=st.sampled_from([1e-3, 1.0, 100.0]),
)
def test_huge_scores(seed, T, S, size):
    """Scores from tiny up to 1e4 and beyond."""
    torch.manual_seed(seed)
    q, k, v = (torch.randn(1, 2, n, 4) for n in (T, S, S))
    q, k = q * size, k * size
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    peer = F.scaled_dot_product_attention(q, k, v)
    out = chunked_attention(q, k, v, None, 2, 2)
    assert largest_error(out, exact) <= error_budget(peer, exact, factor=2)


def test_blind_rows_and_nan_behind_the_mask():
    """Zeros for a query without keys; NaN and Inf behind a mask leak nowhere."""
    q, k, v = (torch.randn(1, 1, n, 4).double() for n in (5, 7, 7))
    mask = torch.ones(1, 1, 5, 7, dtype=torch.bool)
    mask[..., 5:] = False
    mask[:, :, 2] = False
    clean = chunked_attention(q, k, v, mask, 2, 3)
    assert clean[:, :, 2].eq(0).all()
    for dirt in (math.nan, math.inf):
        k[:, :, 5:], v[:, :, 5:], q[:, :, 2] = dirt, dirt, dirt
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        out = chunked_attention(*leaves, mask, 2, 3)
        torch.testing.assert_close(out, clean)
        for grad in torch.autograd.grad(out.square().sum(), leaves):
            assert grad.isfinite().all()


def test_nan_seen_by_others_only():
    """A value that holds NaN spoils the queries that see it and no other."""
    x = torch.randn(1, 1, 6, 4)
    v = x.clone()
    v[:, :, 4] = math.nan
    causal = torch.ones(6, 6, dtype=torch.bool).tril()[None, None]
    out = chunked_attention(x, x, v, causal, 3, 4)
    assert out[:, :, :4].isfinite().all()
    assert out[:, :, 4:].isnan().all()


def test_summary_by_hand():
    """The sums and the max of one chunk, and of two."""
    q = torch.tensor([[[[2.0, 0.0, 0.0, 0.0]]]]).double()
    k = torch.tensor([[[[0.0, 0, 0, 0], [math.log(4), 0, 0, 0]]]], dtype=torch.float64)
    v = torch.tensor([[[[1.0], [10.0]]]]).double()
    seen = torch.ones(1, 1, 1, 2, dtype=torch.bool)
    one = summarize(q, k, v, seen)  # scores 0 and log 4
    assert [x.item() for x in one] == pytest.approx([10.25, 1.25, math.log(4)])
    learned = summarize(q.requires_grad_(), k, v, seen)
    assert learned.sum_BHT1.requires_grad
    assert not learned.max_BHT1.requires_grad
    q = q.detach()
    two = one._replace(max_BHT1=one.max_BHT1 + math.log(2))
    for both in (merge(one, two), merge(two, one)):
        expected = [15.375, 1.875, math.log(8)]
        assert [x.item() for x in both] == pytest.approx(expected)
    assert summarize(q.half(), k.half(), v.half(), seen).sum_BHT1.dtype == torch.float32


def test_no_keys():
    """Without any key the output is zeros."""
    q, k = torch.randn(1, 1, 3, 4), torch.randn(1, 1, 0, 4)
    assert chunked_attention(q, k, k).equal(torch.zeros(1, 1, 3, 4))


def test_same_work_forward_once_more_backward():
    """The forward takes the FLOPs of attention; the backward one more forward."""
    x = torch.randn(1, 2, 64, 8, requires_grad=True)
    forward = 2 * 4 * 64 * 64 * 8
    assert count_flops(lambda: chunked_attention(x, x, x, None, 16, 32)) == forward
    both = count_flops(
        lambda: chunked_attention(x, x, x, None, 16, 32).sum().backward()
    )
    assert both == 4 * forward


def test_inputs_stay_and_may_be_views():
    """Inputs are not changed, and need not be contiguous."""
    x = torch.randn(2, 9, 3, 4).transpose(1, 2)
    mask = (torch.rand(9, 9, 2, 3) < 0.5).permute(2, 3, 0, 1)
    no_input_mutated(lambda x: chunked_attention(x, x, x, mask, 4, 4), x)
    whole = chunked_attention(*[x.contiguous()] * 3, mask.contiguous(), 9, 9)
    torch.testing.assert_close(chunked_attention(x, x, x, mask, 4, 4), whole)


def test_bad_input_is_named():
    """What came and what was expected."""
    x = torch.randn(1, 1, 3, 4)
    for sizes, said in (
        ((0, 1), "query_chunk is 0, expected at least 1"),
        ((1, -2), "key_chunk is -2, expected at least 1"),
    ):
        with pytest.raises(ValueError, match=f"^{said}$"):
            chunked_attention(x, x, x, None, *sizes)
    with pytest.raises(ValueError, match="key has size 3, query has size 4"):
        chunked_attention(x, x[..., :3], x)
    with pytest.raises(ValueError, match=r"mask has shape \(3, 3\), expected"):
        chunked_attention(x, x, x, torch.ones(3, 3, dtype=torch.bool))


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.efficient.chunked").output
    for sizes in ("100 queries, 130", "32 queries, 48", "7 queries, 1"):
        line = next(x for x in out.splitlines() if f"chunks of {sizes} keys" in x)
        assert float(line.split()[-1]) < 1e-6
    assert "attend: 33554432 FLOPs forward, 100663296 with backward" in out
    assert "chunked_attention: 33554432 FLOPs forward, 134217728 with backward" in out
    assert "attend: 12.25 MiB at length 1024" in out
    assert "chunked: 1.20 MiB at length 1024" in out
    assert "chunked, forward: 0.38 MiB at length 1024" in out
    assert "64 queries, √S: 0.06 MiB at length 1024" in out
    assert "attend keeps 4.25 MiB" in out
    assert "no_checkpoint keeps 7.33 MiB" in out
    assert "chunked_attention keeps 0.13 MiB" in out
    assert "queries without an answer: 2" in out
    assert "CheckpointError: torch.utils.checkpoint: Recomputed values" in out
    assert "RuntimeError: When use_reentrant=True" in out
