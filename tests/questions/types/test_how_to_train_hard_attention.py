"""What the answer on training hard attention quotes."""

import pytest
import torch

from snippets.questions.types.how_to_train_hard_attention import draws_needed, moments


def test_moments_are_those_of_sampled_estimates():
    """The enumeration agrees with draws."""
    weight, loss = torch.randn(5).double().softmax(0), torch.randn(5).double()
    mean, variance = moments(weight, loss, 0.3)
    place = torch.multinomial(weight, 200_000, replacement=True)
    grad = (loss[place] - 0.3).unsqueeze(1) * (torch.eye(5)[place] - weight)
    error = grad.std(0) / 200_000**0.5
    assert ((grad.mean(0) - mean).abs() <= 5 * error).all()
    assert grad.var(0).sum().item() == pytest.approx(variance, rel=0.05)


def test_any_baseline_is_unbiased():
    """The mean does not move with the baseline, the variance does."""
    weight, loss = torch.randn(5).double().softmax(0), torch.randn(5).double()
    (zero, _), (far, _) = (moments(weight, loss, b) for b in (0.0, -7.0))
    torch.testing.assert_close(zero, far)


def test_a_baseline_turns_the_square_into_a_line():
    """Four times the positions: 16 times the draws without a baseline, 4 with one."""
    for size in (64, 256):
        plain = draws_needed(4 * size, False) / draws_needed(size, False)
        based = draws_needed(4 * size, True) / draws_needed(size, True)
        assert plain == pytest.approx(16, rel=0.05)
        assert based == pytest.approx(4, rel=0.05)


def test_quoted_numbers(evidence):
    """The numbers that the answer quotes."""
    needed = evidence.names["needed"]
    assert [round(n) for n in needed[64]] == [403100, 49427100, 6200]
    assert [round(n) for n in needed[256]] == [6527900, 792447900, 25400]
    ratio = evidence.names["ratio"]
    assert ratio["mean of both"] == pytest.approx(0.5)
    assert ratio["loss of the other"] == pytest.approx(1.0)
