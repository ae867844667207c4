"""The facts that the page on rank states."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def names():
    """Run the evidence."""
    return run_main("snippets.questions.softmax.attention_rank").names


def test_softmax_lifts_the_rank(names):
    """Over ten for K = 1, the full 64 for K = 4 and 16."""
    found = names["found"]
    assert found[1] > 10
    assert (found[4], found[16]) == (64, 64)


def test_a_causal_mask_gives_full_rank(names):
    """The determinant is the product of the diagonal; its log is about -41."""
    assert names["product"] == pytest.approx(-41, abs=1)
    assert names["determinant"] == pytest.approx(names["product"])


def test_one_dimension_orders_two_lead_anywhere(names):
    """K = 1: the two ends. K = 2: all nine."""
    assert names["leaders"] == {"K = 1": {0, 8}, "K = 2": set(range(9))}


def test_arbitrary_weights_take_one_less_than_the_length(names):
    """About 41 % wrong with K = 8, exact only with K = 31 for 32 positions."""
    wrong = names["wrong"]
    assert wrong[8] == pytest.approx(0.41, abs=0.02)
    assert wrong[30] > 1e-3
    assert wrong[31] < 1e-12
