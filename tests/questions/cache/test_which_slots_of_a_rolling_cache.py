"""The facts that the page on the rolling cache states."""

import pytest

from tests.running import run_main


@pytest.fixture
def demonstration():
    """Run the evidence."""
    return run_main("snippets.questions.cache.which_slots_of_a_rolling_cache")


def test_slots_after_the_ring_is_full(demonstration):
    """Position 4 overwrites position 0; after 6 the slots hold 4, 5, 6 and 3."""
    assert "after position 4: slots hold [4, 1, 2, 3]" in demonstration.output
    assert "after position 6: slots hold [4, 5, 6, 3]" in demonstration.output


def test_decoding_equals_the_window_mask(demonstration):
    """Rotated by positions it is right; by slots it is wrong unless all slots align."""
    first = demonstration.names["first"]
    assert first["position t"] == []
    assert first["slot t mod W"] == [4, 5, 6, 8, 9, 10]


def test_order_matters_only_to_a_bias(demonstration):
    """Softmax does not see the order of keys; a bias by slot does."""
    moved = demonstration.names["moved"]
    assert moved["none"] < 1e-12
    assert moved["ALiBi"] > 0.01
