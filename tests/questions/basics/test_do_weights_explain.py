"""The same weights may matter or not, and a weight is not a contribution."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def names():
    """Run the evidence."""
    return run_main("snippets.questions.basics.do_weights_explain").names


def test_moving_the_weights_may_break_everything_or_nothing(names):
    """It depends on whether other positions hold the answer."""
    kept, moved = names["result"]["class at one position"]
    assert kept > 0.99
    assert moved == pytest.approx(0.26, abs=0.02)
    kept, moved = names["result"]["class at every position"]
    assert min(kept, moved) > 0.99


def test_the_largest_weight_contributes_least(names):
    """Weights and contributions are in another order."""
    assert names["share_3"].argmax() == names["contribution_3"].argmin()
    assert names["contribution_3"].tolist() == pytest.approx([0.009, 0.18, 0.16])


def test_interventions_disagree(names):
    """Without the value almost nothing changes; without the key almost everything."""
    assert names["zeroed"] == pytest.approx(0.97, abs=0.01)
    assert names["growth"] == pytest.approx(9.7, abs=0.1)
