"""The facts of the page on ALiBi's slopes."""

import pytest


def test_eight_heads_halve(evidence):
    """The slopes are 1/2, 1/4 and so on to 1/256."""
    assert evidence.names["eight"] == [2.0**-h for h in range(1, 9)]


def test_twelve_heads_are_eight_and_four_more(evidence):
    """The last four come from the row of sixteen heads."""
    assert evidence.names["twelve"][:8] == evidence.names["eight"]
    assert evidence.names["twelve"][8:] == pytest.approx(
        [0.707, 0.354, 0.177, 0.088], abs=1e-3
    )
    assert evidence.names["common"] == 4


def test_slopes_set_the_reach(evidence):
    """Two or three keys at 1/2, about 256 at 1/256."""
    assert evidence.names["seen"][1 / 2] == pytest.approx(2.54, abs=0.01)
    assert evidence.names["seen"][1 / 256] == pytest.approx(256.5, abs=0.1)
