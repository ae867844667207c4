"""The same weights may matter or not, and a weight is not a contribution."""

import pytest


def test_moving_the_weights_may_break_everything_or_nothing(evidence):
    """It depends on whether other positions hold the answer."""
    kept, moved = evidence.names["result"]["class at one position"]
    assert kept > 0.99
    assert moved == pytest.approx(0.26, abs=0.02)
    kept, moved = evidence.names["result"]["class at every position"]
    assert min(kept, moved) > 0.99


def test_the_largest_weight_contributes_least(evidence):
    """Weights and contributions are in another order."""
    assert (
        evidence.names["share_3"].argmax() == evidence.names["contribution_3"].argmin()
    )
    assert evidence.names["contribution_3"].tolist() == pytest.approx(
        [0.009, 0.18, 0.16]
    )


def test_interventions_disagree(evidence):
    """Without the value almost nothing changes; without the key almost everything."""
    assert evidence.names["zeroed"] == pytest.approx(0.97, abs=0.01)
    assert evidence.names["growth"] == pytest.approx(9.7, abs=0.1)
