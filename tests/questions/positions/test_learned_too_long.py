"""The facts of the page on learned positions that are too long."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def demonstration():
    """Run the evidence."""
    return run_main("snippets.questions.positions.learned_too_long")


def test_there_is_no_row(demonstration):
    """The lookup raises."""
    assert "index out of range" in demonstration.output


def test_unused_rows_stay(demonstration):
    """The last 192 of 256 rows do not move."""
    assert demonstration.names["still"] == 192


def test_late_rows_are_trained_little(demonstration):
    """The first row is updated in each step, the 64th fewer than ten times."""
    first, middle, last = demonstration.names["updates_any"][[0, 31, 63]].tolist()
    assert first == 200
    assert last < 10 < middle < first
