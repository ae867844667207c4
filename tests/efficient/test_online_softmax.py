"""Online softmax: torch.softmax and torch.logsumexp as oracles, merging, cost."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snippets.efficient.online_softmax import (
    State,
    logsumexp,
    merge,
    online_softmax,
    scan,
    shifted_exp,
    summarize,
)
from snippets.properties.cost import largest_bytes
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import agreement, chunked_equals_whole
from tests.running import run_main


# --8<-- [start:equals-torch]
def test_equals_torch():
    """Weights and the log of the sum equal PyTorch's, in three dtypes."""
    exact = torch.randn(5, 130).double() * 8
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x = exact.to(dtype)
        fine = torch.softmax(x.double(), 1)
        error = largest_error(online_softmax(x, block=16), fine)
        allowed = error_budget(torch.softmax(x, 1), fine, factor=2)
        assert error <= allowed
        lse, fine = logsumexp(scan(x.split(16, 1))), torch.logsumexp(x.double(), 1)
        assert largest_error(lse, fine) <= error_budget(lse.to(fine), fine)
        print(f"{dtype}: largest error {error:.1e}, allowed {allowed:.1e}")


# --8<-- [end:equals-torch]


# --8<-- [start:any-cut]
def test_any_cut_any_order():
    """However the row is cut and its parts are merged, the state is the same."""

    def property_(draw):
        T, S = draw.size("T", 1, 3), draw.size("S", 1, 9)
        x = draw.normal(T, S) * 10
        x = x.masked_fill(~draw.mask(T, S), -math.inf)  # some parts are nothing else
        chunked_equals_whole(lambda x: torch.logsumexp(x, 1), by_chunk, x, draw)
        a, b, c = (summarize(part) for part in (x, x + 3, x[:, :1] - 3))
        left, right = merge(merge(a, b), c), merge(a, merge(b, c))
        for one, other, turned in zip(left, right, merge(c, merge(b, a)), strict=True):
            agreement(one, other)
            agreement(one, turned)

    def by_chunk(x, chunk):
        return logsumexp(scan(x.split(chunk, 1))).nan_to_num(neginf=-math.inf)

    hold(property_)
    print("three parts in any order: one state")


# --8<-- [end:any-cut]


# --8<-- [start:one-pass]
def test_one_pass():
    """Every block is read once, and nothing larger than a block is made."""
    row, read = torch.randn(2, 4096), []

    def blocks():
        for start in range(0, 4096, 64):
            read.append(start)
            yield row[:, start : start + 64]

    largest = largest_bytes(lambda: scan(blocks()))
    assert read == list(range(0, 4096, 64))
    assert largest == 2 * 64 * 4
    print(f"row of {row.nbytes} bytes, largest tensor made: {largest} bytes")


# --8<-- [end:one-pass]


def test_gradients():
    """Gradients equal PyTorch's although none flows through the max."""
    x = torch.randn(3, 11).double()
    x[0, :4], x[1, 0] = -math.inf, 30.0
    x.requires_grad_()
    upstream = torch.randn(3, 11).double()
    ours = torch.autograd.grad((online_softmax(x, 4) * upstream).sum(), x)
    theirs = torch.autograd.grad((torch.softmax(x, 1) * upstream).sum(), x)
    torch.testing.assert_close(ours, theirs)
    y = torch.randn(2, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda y: online_softmax(y, 2), y)
    assert torch.autograd.gradcheck(lambda y: logsumexp(scan(y.split(2, 1))), y)
    assert not summarize(y).max_T.requires_grad


@given(
    seed=st.integers(0, 999),
    T=st.integers(1, 4),
    S=st.integers(1, 9),
    block=st.integers(1, 11),
    shift=st.sampled_from([-1e4, -100.0, 0.0, 100.0, 1e4]),
)
def test_any_shape_and_size_of_scores(seed, T, S, block, shift):
    """Scores far from zero, on either side; one row, one score."""
    torch.manual_seed(seed)
    x = torch.randn(T, S) * 4 + shift
    exact = torch.softmax(x.double(), 1)
    budget = error_budget(torch.softmax(x, 1), exact, factor=2)
    assert largest_error(online_softmax(x, block), exact) <= budget


def test_state_by_hand():
    """The max and the sum of exp(score - max), exactly."""
    state = summarize(
        torch.tensor([[0.0, math.log(2)], [-math.inf, 5.0]], dtype=torch.float64)
    )
    assert state.max_T.tolist() == [math.log(2), 5.0]
    assert state.sum_T.tolist() == pytest.approx([1.5, 1.0], abs=1e-15)
    both = merge(state, State(state.max_T + math.log(4), state.sum_T * 2))
    assert both.sum_T.tolist() == pytest.approx([1.5 / 4 + 3, 1 / 4 + 2])


def test_masked_start_and_rows():
    """-inf before, between and after; rows of nothing else give zeros."""
    x = torch.randn(3, 8)
    x[0, :3], x[0, 5:], x[1] = -math.inf, -math.inf, -math.inf
    for block in (1, 2, 3, 8):
        out = online_softmax(x, block)
        torch.testing.assert_close(out[0], torch.softmax(x[0], 0))
        assert out[1].eq(0).all()
        state = scan(x.split(block, 1))
        assert state.sum_T[1] == 0
        assert logsumexp(state)[1] == -math.inf
    x.requires_grad_()
    online_softmax(x, 2).square().sum().backward()
    assert x.grad.isfinite().all()


def test_shifted_exp():
    """Only -inf minus -inf is special."""
    inf = math.inf
    x, top = torch.tensor([-inf, -inf, 0.0, 1.0]), torch.tensor([-inf, 2.0, 0.0, 3.0])
    expected = [0.0, 0.0, 1.0, pytest.approx(math.exp(-2))]
    assert shifted_exp(x, top).tolist() == expected


def test_nan_stays_nan():
    """As in torch.softmax: a NaN among the scores is not hidden."""
    x = torch.zeros(2, 6)
    x[0, 3] = math.nan
    out = online_softmax(x, 2)
    assert out[0].isnan().all()
    assert out[1].isfinite().all()


def test_state_is_wide():
    """Half precision is summed in float32; float64 stays float64."""
    for dtype, wide in (
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        x = torch.zeros(1, 70_000, dtype=dtype)
        state = scan(x.split(7_000, 1))
        assert [one.dtype for one in state] == [wide, wide]
        assert state.sum_T.item() == 70_000
        assert online_softmax(x, 7_000).dtype == dtype


def test_non_contiguous():
    """A transposed view does as well."""
    x = torch.randn(9, 4).T
    torch.testing.assert_close(online_softmax(x, 4), torch.softmax(x, 1))


def test_bad_input_is_named():
    """What came and what was expected."""
    for x, said in (
        (
            torch.zeros(3),
            r"score has shape \(3,\), expected \(rows, at least 1 score\)",
        ),
        (
            torch.zeros(3, 0),
            r"score has shape \(3, 0\), expected \(rows, at least 1 sc",
        ),
        (torch.zeros(3, 1).int(), r"score has torch\.int32, expected floating point$"),
    ):
        with pytest.raises(ValueError, match=f"^{said}"):
            online_softmax(x, 2)
    with pytest.raises(ValueError, match=r"^block is 0, expected at least 1$"):
        online_softmax(torch.zeros(1, 1), 0)
    two, three = (summarize(torch.zeros(n, 1)) for n in (2, 3))
    with pytest.raises(
        ValueError, match=r"^one has 2 rows, two has 3: they must agree$"
    ):
        merge(two, three)


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.efficient.online_softmax").output
    assert "scores 0, 1: max 3.0, sum 1.1353" in out
    assert "and from 2: max 5.0, sum 1.2034" in out
    assert "and from 4: max 5.0, sum 1.5713" in out
    assert "and from 6: max 5.0, sum 1.5781" in out
    assert "log of the sum of exp(score): 5.4562" in out
    assert "torch.logsumexp says:         5.4562" in out
    assert "exp / sum:      [[0.0, nan, nan]]" in out
    assert "online softmax: [[3.3" in out
    assert "S = 65536: 1024 and 262144 bytes" in out
    assert "starts at 0.0: sum 0.0000, [[nan, nan]]" in out
    assert "starts at -500.0: sum 0.0000, [[nan, nan]]" in out
    assert "starts at -inf: sum 1.3679, [[0.73" in out
    assert "plain exp: nan\nplain exp: nan\nshifted_exp: 1.36" in out
    assert "in float16: 2048.0\nso the weights add up to 2.0" in out
    assert "sum in the state: 4096.0" in out
