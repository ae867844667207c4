"""The facts that the page on what a cache keeps states."""


def test_only_old_keys_and_values_are_needed(evidence):
    """The new output survives the loss of old queries, not of old keys or values."""
    assert evidence.names["needed"] == {"q": False, "k": True, "v": True}
    assert "old q lost: the new output is equal" in evidence.output


def test_causal_keys_never_change(evidence):
    """A new token moves the keys of layer 2 only where there is no causal mask."""
    moved = evidence.names["moved"]
    assert moved["causal"] < 1e-12
    assert moved["no mask"] > 0.1


def test_the_cache_saves_rows_not_the_triangle(evidence):
    """100 tokens: 100 rows instead of 5050, yet 5050 products with a cache."""
    assert evidence.names["count"] == {
        "rows, cache": 100,
        "rows, none": 5050,
        "q·k, cache": 5050,
        "q·k, none": 171700,
    }
