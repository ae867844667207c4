"""FlashAttention forward: SDPA, PyTorch's flash kernel and float64 as oracles; work; memory."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from snippets.efficient.flash_forward import flash_forward, last_keys, row_of_tiles
from snippets.properties.cost import count_flops, exponent, largest_bytes, peak_bytes
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import agreement, causality, no_input_mutated
from tests.running import run_main


# --8<-- [start:equals-sdpa]
def test_equals_sdpa():
    """Output and LSE equal those of PyTorch's own flash kernel, in three dtypes."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    q, k, v = (torch.randn(2, 3, 130, 16) for _ in range(3))
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        args = [x.to(dtype) for x in (q, k, v)]
        fine = [x.double() for x in args]
        for causal in (False, True):
            out, lse = flash_forward(*args, causal, rows=32, columns=48)
            theirs = F.scaled_dot_product_attention(*args, is_causal=causal)
            exact = F.scaled_dot_product_attention(*fine, is_causal=causal)
            error, allowed = largest_error(out, exact), error_budget(theirs, exact, 2)
            assert error <= allowed
            _, theirs = kernel(*args, is_causal=causal)
            _, exact = kernel(*fine, is_causal=causal)
            assert largest_error(lse, exact) <= error_budget(theirs, exact, 2)
        print(f"{dtype}: largest error {error:.1e}, allowed {allowed:.1e}")


# --8<-- [end:equals-sdpa]


# --8<-- [start:any-tiles]
def test_any_tiles():
    """Tiles that divide nothing, T ≠ S, both masks: equals attention and logsumexp."""

    def property_(draw):
        T, S = draw.size("T", 1, 7), draw.size("S", 1, 7)
        q, k, v = (
            draw.normal(1, 2, T, 3),
            draw.normal(1, 2, S, 3),
            draw.normal(1, 2, S, 2),
        )
        causal = draw.choice("causal", [False, True])
        tile = draw.size("rows", 1, 8), draw.size("columns", 1, 8)
        seen = torch.ones(T, S, dtype=torch.bool)
        seen = seen.tril(S - T) if causal else seen
        score = (q @ k.mT / math.sqrt(3)).masked_fill(~seen, -math.inf)
        out, lse = flash_forward(q, k, v, causal, *tile)
        expected = torch.softmax(score, 3).nan_to_num(0.0) @ v
        agreement(out, expected, "the output")
        blind = ~seen.any(1)
        assert lse[:, :, blind].eq(-math.inf).all()
        agreement(lse[:, :, ~blind], torch.logsumexp(score, 3)[:, :, ~blind], "the LSE")

    hold(property_, examples=60)
    print("tiled equals whole")


# --8<-- [end:any-tiles]


# --8<-- [start:same-work]
def test_same_work():
    """All tiles: the FLOPs of plain attention. Causal: only tiles that are seen."""
    x = torch.randn(1, 2, 96, 8)
    whole = 2 * 2 * 96 * 96 * (8 + 8)
    assert count_flops(lambda: flash_forward(x, x, x, False, 32, 16)) == whole
    assert count_flops(lambda: flash_forward(x, x, x, True, 16, 16)) == whole * 21 // 36
    few = x[:, :, :32]
    assert (
        count_flops(lambda: flash_forward(few, x, x, True, 16, 16)) == whole * 11 // 36
    )
    assert (
        count_flops(lambda: flash_forward(x, few, few, True, 16, 16)) == whole * 3 // 36
    )
    print("6 × 6 tiles: all 36 without a mask, 21 under a causal mask")


# --8<-- [end:same-work]


def test_memory_is_linear():
    """No T × S tensor; the peak grows as T."""
    lengths, peaks = [128, 256, 512], []
    for length in lengths:
        x = torch.randn(1, 1, length, 16)
        largest = largest_bytes(lambda x=x: flash_forward(x, x, x))
        assert largest == max(64 * 64, length * 16) * 4
        peaks.append(peak_bytes(lambda x=x: flash_forward(x, x, x)))
    assert exponent(lengths, peaks) < 1.05
    print(f"peak bytes grow as T^{exponent(lengths, peaks):.2f}")


def test_future_changes_nothing():
    """Neither numbers nor NaN in later keys and values reach earlier outputs."""

    def property_(draw):
        x = draw.normal(1, 1, 7, 4)
        tile = draw.size("tile", 1, 8)
        causality(lambda x: flash_forward(x, x, x, True, tile, 3)[0], x, draw, axis=2)
        cut = draw.size("first bad key", 1, 6)
        clean = flash_forward(x, x, x, True, tile, 3)
        k = x.clone()
        k[:, :, cut:] = draw.choice("bad", [math.nan, math.inf, -math.inf])
        for k_, v_ in ((k, x), (x, k), (k, k)):
            bad = flash_forward(x, k_, v_, True, tile, 3)
            for a, b in zip(bad, clean, strict=True):
                agreement(a[:, :, :cut], b[:, :, :cut])

    hold(property_)


def test_more_queries_than_keys():
    """The first queries see nothing: zeros and -inf, whatever they hold."""
    q, k = torch.randn(1, 1, 9, 4), torch.randn(1, 1, 4, 4)
    q[:, :, :5] = math.nan
    for rows in (1, 3, 4, 9):
        out, lse = flash_forward(q, k, k, True, rows, 3)
        assert out[:, :, :5].eq(0).all()
        assert lse[:, :, :5].eq(-math.inf).all()
        exact = F.scaled_dot_product_attention(q[:, :, 5:], k, k, is_causal=True)
        torch.testing.assert_close(out[:, :, 5:], exact)


@given(seed=st.integers(0, 999), size=st.sampled_from([1e-3, 1.0, 100.0]))
def test_huge_scores(seed, size):
    """Scores far beyond what exp can hold."""
    torch.manual_seed(seed)
    q, k, v = (torch.randn(1, 1, 5, 4) * s for s in (size, size, 1.0))
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    peer = F.scaled_dot_product_attention(q, k, v)
    out, lse = flash_forward(q, k, v, rows=2, columns=2)
    assert largest_error(out, exact) <= error_budget(peer, exact, factor=2)
    assert lse.isfinite().all()


def test_rows_of_very_low_scores():
    """All scores at -1e4: weights as usual."""
    q, k = torch.full((1, 1, 2, 4), 100.0), torch.full((1, 1, 5, 4), -50.0)
    v = torch.randn(1, 1, 5, 3)
    out, lse = flash_forward(q, k, v, columns=2)
    torch.testing.assert_close(out, v.mean(2, keepdim=True).expand(1, 1, 2, 3))
    torch.testing.assert_close(lse, torch.full((1, 1, 2), -1e4 + math.log(5)))


def test_halves_merge_by_their_lse():
    """Attention to two parts of the keys, weighted by exp(LSE), is attention to all."""
    q, k, v = (torch.randn(1, 2, n, 4).double() for n in (3, 7, 7))
    (a, a_lse), (b, b_lse) = (
        flash_forward(q, k[:, :, part], v[:, :, part])
        for part in (slice(0, 2), slice(2, 7))
    )
    weight = torch.softmax(torch.stack([a_lse, b_lse]), 0).unsqueeze(4)
    out, lse = flash_forward(q, k, v)
    torch.testing.assert_close(weight[0] * a + weight[1] * b, out)
    torch.testing.assert_close(torch.logaddexp(a_lse, b_lse), lse)


def test_dtypes_and_last_keys():
    """Output like the queries, LSE wide; the diagonal ends in the bottom right."""
    x = torch.randn(1, 1, 3, 4)
    for dtype, wide in ((torch.float16, torch.float32), (torch.float64, torch.float64)):
        out, lse = flash_forward(*[x.to(dtype)] * 3)
        assert (out.dtype, lse.dtype) == (dtype, wide)
    assert last_keys(2, 5, True).tolist() == [[3], [4]]
    assert last_keys(3, 2, True).tolist() == [[-1], [0], [1]]
    assert last_keys(2, 5, False).tolist() == [[4], [4]]
    wide, _ = row_of_tiles(*[x.half()] * 3, last_keys(3, 3, True), 2)
    assert wide.dtype == torch.float32


def test_views_and_no_keys():
    """Non-contiguous inputs, inputs unchanged, no keys at all."""
    x = torch.randn(2, 9, 3, 4).transpose(1, 2)
    no_input_mutated(lambda x: flash_forward(x, x, x, True, 4, 4), x)
    torch.testing.assert_close(
        flash_forward(x, x, x), flash_forward(*[x.contiguous()] * 3)
    )
    out, lse = flash_forward(x, x[:, :, :0], x[:, :, :0])
    assert out.eq(0).all()
    assert lse.eq(-math.inf).all()


def test_bad_input_is_named():
    """What came and what was expected."""
    x = torch.randn(1, 1, 3, 4)
    with pytest.raises(ValueError, match=r"^rows is 0, expected at least 1$"):
        flash_forward(x, x, x, rows=0)
    with pytest.raises(ValueError, match=r"^columns is -1, expected at least 1$"):
        flash_forward(x, x, x, columns=-1)
    assert flash_forward(x, x, x, rows=1, columns=1)[0].shape == x.shape
    with pytest.raises(ValueError, match="key has size 3, query has size 4"):
        flash_forward(x, x[..., :3], x)


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.efficient.flash_forward").output
    assert "output (1, 2, 100, 8) LSE (1, 2, 100)" in out
    line = next(x for x in out.splitlines() if "differs from plain" in x)
    assert float(line.split()[-1]) < 1e-6
    assert "plain attention: 33554432 FLOPs" in out
    assert "no mask, tiles of 64: 1.000 of it" in out
    assert "causal, tiles of 128: 0.625 of it" in out
    assert "causal, tiles of 64: 0.562 of it" in out
    assert "causal, tiles of 16: 0.516 of it" in out
    assert "at 1024: flash 222 KiB, plain 8544 KiB" in out
    assert "bottom right: differs by 0.00" in out
    assert "top left: differs by 1.42" in out
    assert "masked by -10000.0: output 100.0" in out
    assert "masked by -inf: output 1.0" in out
    assert "one in base 2: differs by 4.0e-01" in out
    line = next(x for x in out.splitlines() if "both natural" in x)
    assert float(line.split()[-1]) < 1e-6
