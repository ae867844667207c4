"""The facts that the page on what a cache keeps states."""

import pytest

from tests.running import run_main


@pytest.fixture
def demonstration():
    """Run the evidence."""
    return run_main("snippets.questions.cache.why_cache_keys_and_values")


def test_only_old_keys_and_values_are_needed(demonstration):
    """The new output survives the loss of old queries, not of old keys or values."""
    assert demonstration.names["needed"] == {"q": False, "k": True, "v": True}
    assert "old q lost: the new output is equal" in demonstration.output


def test_causal_keys_never_change(demonstration):
    """A new token moves the keys of layer 2 only where there is no causal mask."""
    moved = demonstration.names["moved"]
    assert moved["causal"] < 1e-12
    assert moved["no mask"] > 0.1


def test_the_cache_saves_rows_not_the_triangle(demonstration):
    """100 tokens: 100 rows instead of 5050, yet 5050 products with a cache."""
    assert demonstration.names["count"] == {
        "rows, cache": 100,
        "rows, none": 5050,
        "q·k, cache": 5050,
        "q·k, none": 171700,
    }
