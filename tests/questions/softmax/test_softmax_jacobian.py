"""The facts that the page on the Jacobian states."""

import re

import pytest
import torch

from snippets.questions.softmax.softmax_jacobian import (
    softmax_backward,
    softmax_jacobian,
)


def test_the_rank_is_one_less_than_the_positive_weights(evidence):
    """7 of 8, 3 of 4, 0 of 1."""
    rows = re.findall(r"(\d) positive weights, rank (\d)", evidence.output)
    assert rows == [("8", "7"), ("4", "3"), ("1", "0")]


def test_it_is_the_derivative():
    """Columns, and the product with a vector, agree with autograd in float64."""
    torch.manual_seed(2)
    score_S = torch.randn(6, dtype=torch.float64, requires_grad=True)
    p_S, grad_S = torch.softmax(score_S, 0), torch.randn(6, dtype=torch.float64)
    (auto_S,) = torch.autograd.grad(p_S, score_S, grad_S)
    torch.testing.assert_close(softmax_jacobian(p_S.detach()) @ grad_S, auto_S)
    torch.testing.assert_close(softmax_backward(p_S.detach(), grad_S), auto_S)


def test_the_norm_is_a_half_at_most_where_two_tie(evidence):
    """0.25 for four equal weights, 0.5 for a tie, 0.004 for a sharp row."""
    norms = [float(x) for x in re.findall(r"largest eigenvalue (\S+)", evidence.output)]
    assert norms == [0.25, 0.5, pytest.approx(0.004, abs=0.0002)]
    assert float(re.search(r"at most (\S+)", evidence.output)[1]) <= 0.5
