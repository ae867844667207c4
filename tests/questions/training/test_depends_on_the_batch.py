"""Samples of a batch."""

import pytest

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.training.depends_on_the_batch")


def test_softmax_without_dimension_normalizes_over_the_batch(page):
    """As dim=0 does."""
    moved = page.names["moved"]
    assert moved["dim=-1"] == 0
    assert moved["no dim"] == moved["dim=0"] > 1


def test_padding_counts_unless_masked(page):
    """With the mask it equals the sequence alone."""
    gap = page.names["gap"]
    assert gap["padding mask"] < 1e-6
    assert gap["no mask"] > 0.1
