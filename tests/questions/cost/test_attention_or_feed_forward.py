"""When scores take half."""

import pytest


def test_scores_take_half_at_six_times_the_size(evidence):
    """And little before."""
    share = evidence.names["share"]
    assert share[6] == pytest.approx(0.5)
    assert share[1] == pytest.approx(1 / 7)
    assert share[12] == pytest.approx(2 / 3)
