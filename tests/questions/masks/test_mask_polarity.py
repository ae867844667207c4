"""Two conventions of PyTorch for a boolean mask."""

import pytest

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.masks.mask_polarity")


def test_the_functions_agree_when_one_mask_is_inverted(page):
    """And only then."""
    names = page.names
    assert names["right"] < 1e-6
    assert not names["wrong"] < 0.01


def test_the_inverted_mask_lets_the_future_in(page):
    """Earlier outputs move with the last value."""
    names = page.names
    assert names["moved"]["True may attend"] == 0
    assert names["moved"]["inverted"] == pytest.approx(1, abs=0.05)
