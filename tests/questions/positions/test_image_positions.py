"""The facts of the page on positions in images and videos."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def names():
    """Run the evidence."""
    return run_main("snippets.questions.positions.image_positions").names


def test_a_shift_of_all_coordinates_changes_nothing(names):
    """Scores depend on the three differences."""
    assert names["shifted"] < 1e-10


def test_two_coordinates_tell_a_neighbor_from_a_new_row(names):
    """One coordinate cannot, since both are 1 apart."""
    assert names["flat"] < 1e-10
    assert abs(names["right"] - names["wrapped"]) > 0.1


def test_equal_coordinates_are_one(names):
    """M-RoPE of text is RoPE."""
    assert names["text"] < 1e-10
