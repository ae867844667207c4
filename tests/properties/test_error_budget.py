"""The budget refuses what it should refuse."""

import pytest
import torch

from snippets.properties.error_budget import error_budget, largest_error
from tests.running import run_main


def test_a_nan_is_an_infinite_error():
    exact_T = torch.zeros(3, dtype=torch.float64)
    result_T = torch.tensor([0.0, float("nan"), 0.0])
    assert largest_error(result_T, exact_T) == float("inf")


def test_another_shape_is_an_infinite_error():
    exact_T = torch.zeros(3, dtype=torch.float64)
    assert largest_error(torch.zeros(3, 1), exact_T) == float("inf")


def test_the_error_is_the_largest_difference():
    exact_T = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert largest_error(torch.tensor([1.5, 2.25]), exact_T) == 0.5


def test_an_exact_peer_leaves_four_units_in_the_last_place():
    exact_T = torch.tensor([3.0], dtype=torch.float64)
    allowed = error_budget(exact_T.float(), exact_T)
    assert allowed == 4 * 3.0 * torch.finfo(torch.float32).eps


def test_the_factor_multiplies_the_peer_s_error():
    exact_T = torch.tensor([0.0, 1.0], dtype=torch.float64)
    peer_T = torch.tensor([0.5, 1.0])
    assert error_budget(peer_T, exact_T, 2.0) - error_budget(peer_T, exact_T) == 0.5


def test_one_percent_is_refused_where_the_peer_is_exact_to_rounding():
    exact_T = torch.linspace(0, 1, 7, dtype=torch.float64)
    peer_T = exact_T.float()
    assert largest_error(peer_T * 1.01, exact_T) > error_budget(peer_T, exact_T, 2.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_peer_or_an_exact_answer_that_is_not_finite_gives_no_budget(bad):
    """An infinite budget would let everything pass, the same NaN included."""
    good_T = torch.tensor([1.0, 2.0], dtype=torch.float64)
    bad_T = torch.tensor([1.0, bad], dtype=torch.float64)
    with pytest.raises(ValueError, match="peer and exact must be finite"):
        error_budget(bad_T.float(), good_T)
    with pytest.raises(ValueError, match="peer and exact must be finite"):
        error_budget(good_T.float(), bad_T)
    with pytest.raises(ValueError, match="the budget is inf: peer and exact"):
        error_budget(good_T[:1].float(), good_T)


def test_demonstration():
    """Another order of summation is within the budget, ten percent are not."""
    out = run_main("snippets.properties.error_budget").output
    assert out.count("ten percent too large") == 2
