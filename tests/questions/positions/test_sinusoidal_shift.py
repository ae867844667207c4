"""The facts of the page on shifting sinusoidal codes."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def names():
    """Run the evidence."""
    return run_main("snippets.questions.positions.sinusoidal_shift").names


def test_one_matrix_shifts_all_positions(names):
    """Fitted on the first 1000 positions, it holds at 5000."""
    assert names["off"]["sinusoidal"] < 1e-6


def test_a_random_table_has_no_such_matrix(names):
    """The same fit fails elsewhere."""
    assert names["off"]["random"] > 0.5


def test_projection_ends_pure_distance(names):
    """Dot products vary with the position once there is a projection."""
    assert names["spread"]["no projection"] < 1e-5
    assert names["spread"]["projected"] > 1
