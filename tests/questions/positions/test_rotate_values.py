"""The facts of the page on rotating values."""

import pytest


def test_rotated_values_feel_a_shift(evidence):
    """Outputs move with absolute positions when only values are left to turn."""
    assert evidence.names["moved"]["rotated"] > 0.1
    assert evidence.names["moved"]["as they are"] < 1e-10


def test_turning_back_makes_them_relative(evidence):
    """Values may be rotated if outputs are turned back."""
    assert evidence.names["moved"]["rotated and turned back"] < 1e-10


def test_rotated_values_average_away(evidence):
    """Equal values keep their length only when they are not rotated."""
    assert evidence.names["length"]["as they are"] == pytest.approx(1)
    assert evidence.names["length"]["rotated"] == pytest.approx(0.91, abs=0.02)
