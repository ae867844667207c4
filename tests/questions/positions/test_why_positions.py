"""The facts of the page on why positions are needed."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def gaps():
    """Run the evidence."""
    return run_main("snippets.questions.positions.why_positions").names["gaps"]


def test_without_positions_words_and_mean_do_not_move(gaps):
    """Both orders give the same vectors up to rounding in float64."""
    assert max(gaps["no positions"]) < 1e-12


def test_with_positions_both_move(gaps):
    """Positions tell the two sentences apart."""
    assert min(gaps["with positions"]) > 0.01
