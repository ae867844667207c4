"""The facts that the page on the maximum states."""

import pytest
import torch

from snippets.questions.softmax.stable_softmax import naive_softmax, shifted_softmax


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_direct_is_first_zero_then_nan(evidence, dtype):
    """The sum overflows first and gives 0, then the exponential and gives NaN."""
    lines = [x for x in evidence.output.splitlines() if x.startswith(f"torch.{dtype},")]
    assert [x.split("naive ")[1] for x in lines] == [
        f"{x}, shifted 0.73" for x in ("0.73", "0.00", "nan")
    ]


def test_any_finite_shift_gives_the_same():
    """In float64, shifts of -20, 0, the mean and the maximum agree with PyTorch."""
    torch.manual_seed(0)
    x_S = 5 * torch.randn(100, dtype=torch.float64)
    for shift in (torch.tensor(-20.0), torch.tensor(0.0), x_S.mean(), x_S.max()):
        torch.testing.assert_close(shifted_softmax(x_S, shift), torch.softmax(x_S, 0))


def test_the_mean_does_not_protect(evidence):
    """Minus the maximum is finite, minus the mean is NaN."""
    assert "minus the mean:    [nan, nan]" in evidence.output
    assert "minus the maximum: [0.731" in evidence.output


def test_one_maximum_for_all_rows_underflows():
    """A row far below the common maximum becomes 0 / 0, as the pitfall says."""
    low_S, top = torch.tensor([0.0, 1.0]), torch.tensor(200.0)
    assert shifted_softmax(low_S, top).isnan().all()
    assert naive_softmax(low_S).isfinite().all()


def test_log_of_softmax_loses_what_log_softmax_keeps(evidence):
    """-inf against -200."""
    assert "log of softmax: [-inf, 0.0]  log_softmax: [-200.0, 0.0]" in evidence.output
