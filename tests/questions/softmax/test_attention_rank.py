"""The facts that the page on rank states."""

import pytest


def test_softmax_lifts_the_rank(evidence):
    """Over ten for K = 1, the full 64 for K = 4 and 16."""
    found = evidence.names["found"]
    assert found[1] > 10
    assert (found[4], found[16]) == (64, 64)


def test_a_causal_mask_gives_full_rank(evidence):
    """The determinant is the product of the diagonal; its log is about -41."""
    assert evidence.names["product"] == pytest.approx(-41, abs=1)
    assert evidence.names["determinant"] == pytest.approx(evidence.names["product"])


def test_one_dimension_orders_two_lead_anywhere(evidence):
    """K = 1: the two ends. K = 2: all nine."""
    assert evidence.names["leaders"] == {"K = 1": {0, 8}, "K = 2": set(range(9))}


def test_arbitrary_weights_take_one_less_than_the_length(evidence):
    """About 41 % wrong with K = 8, exact only with K = 31 for 32 positions."""
    wrong = evidence.names["wrong"]
    assert wrong[8] == pytest.approx(0.41, abs=0.02)
    assert wrong[30] > 1e-3
    assert wrong[31] < 1e-12
