"""When scores take half."""

import pytest


def test_scores_take_half_at_six_times_the_size(evidence):
    """And little before."""
    share = evidence.names["share"]
    assert share[6] == pytest.approx(0.5)
    assert share[1] == pytest.approx(1 / 7)
    assert share[12] == pytest.approx(2 / 3)


def test_real_models_cross_around_six_times_the_size(evidence):
    """Whatever their key/value heads and gates are."""
    assert evidence.names["half"] == {"8B": 26_624, "70B": 52_224, "405B": 97_280}
