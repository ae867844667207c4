"""When scores take half."""

import pytest

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.cost.attention_or_feed_forward")


def test_scores_take_half_at_six_times_the_size(page):
    """And little before."""
    share = page.names["share"]
    assert share[6] == pytest.approx(0.5)
    assert share[1] == pytest.approx(1 / 7)
    assert share[12] == pytest.approx(2 / 3)
