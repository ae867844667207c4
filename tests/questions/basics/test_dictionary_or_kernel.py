"""The two pictures of attention."""

import pytest


def test_equal_for_keys_of_one_length_only(evidence):
    """Otherwise a term is missing."""
    off = evidence.names["off"]
    assert off["same length"] < 1e-12
    assert off["any length"] > 0.1


def test_a_long_key_wins_by_dot_product(evidence):
    """And hardly counts by distance."""
    share = evidence.names["share"]
    assert share["kernel"] == pytest.approx(0.0015, abs=0.001)
    assert share["attention"] == pytest.approx(0.881, abs=0.001)


def test_a_lookup_takes_a_lead_that_grows_with_the_logarithm(evidence):
    """Ten times the keys, 2.3 more."""
    need = evidence.names["need"]
    assert need[1000] == pytest.approx(11.5, abs=0.05)
    assert need[10_000] - need[1000] == pytest.approx(2.3, abs=0.01)


def test_the_best_width_is_neither_end(evidence):
    """Too narrow copies noise, too wide is the mean."""
    error = evidence.names["error"]
    best = min(error.values())
    assert error[0.01] > 2 * best
    assert error[5.0] > 4 * best
