"""The facts of the page on rotating values."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def names():
    """Run the evidence."""
    return run_main("snippets.questions.positions.rotate_values").names


def test_rotated_values_feel_a_shift(names):
    """Outputs move with absolute positions when only values are left to turn."""
    assert names["moved"]["rotated"] > 0.1
    assert names["moved"]["as they are"] < 1e-10


def test_turning_back_makes_them_relative(names):
    """Values may be rotated if outputs are turned back."""
    assert names["moved"]["rotated and turned back"] < 1e-10


def test_rotated_values_average_away(names):
    """Equal values keep their length only when they are not rotated."""
    assert names["length"]["as they are"] == pytest.approx(1)
    assert names["length"]["rotated"] < 0.95
