"""The facts of the page on the base of RoPE."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def names():
    """Run the evidence."""
    return run_main("snippets.questions.positions.rotary_base").names


def test_the_slowest_pair(names):
    """One turn takes 54 thousand or 2.56 million positions."""
    assert names["slowest"][10_000] == pytest.approx(54410, abs=1)
    assert names["slowest"][500_000] == pytest.approx(2.56e6, rel=0.003)


def test_more_pairs_stay_unfinished(names):
    """A larger base leaves more pairs without a full turn."""
    assert names["unfinished"] == {10_000: 14, 500_000: 29}


def test_far_scores_are_larger(names):
    """The mean cosine at distance 4096 falls later."""
    assert names["far"][500_000] > names["far"][10_000] + 0.1
