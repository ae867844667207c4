"""Comparing with the library."""

import pytest

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.training.test_against_library")


def test_with_copied_weights_only_rounding_is_left(page):
    """A missing scale shows."""
    gap = page.names["gap"]
    assert gap["copied"] < 1e-5
    assert gap["not copied"] > 0.3
    assert gap["copied, no square root"] > 0.05


def test_one_position_hides_the_fault(page):
    """Every weight is 1."""
    assert page.names["alike"] < 1e-6
