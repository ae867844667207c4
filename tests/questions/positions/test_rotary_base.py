"""The facts of the page on the base of RoPE."""

import pytest


def test_the_slowest_pair(evidence):
    """One turn takes 54 thousand or 2.56 million positions."""
    assert evidence.names["slowest"][10_000] == pytest.approx(54410, abs=1)
    assert evidence.names["slowest"][500_000] == pytest.approx(2.56e6, rel=0.003)


def test_more_pairs_stay_unfinished(evidence):
    """A larger base leaves more pairs without a full turn."""
    assert evidence.names["unfinished"] == {10_000: 14, 500_000: 29}


def test_far_scores_are_larger(evidence):
    """The mean cosine at distance 4096 is about -0.05 or 0.38."""
    assert evidence.names["far"] == pytest.approx(
        {10_000: -0.05, 500_000: 0.38}, abs=0.01
    )


def test_the_mean_is_not_monotone(evidence):
    """It rises in many steps at either base."""
    assert min(evidence.names["rises"].values()) > 0.1
