"""The facts that the page on the rolling cache states."""


def test_slots_after_the_ring_is_full(evidence):
    """Position 4 overwrites position 0; after 6 the slots hold 4, 5, 6 and 3."""
    assert "after position 4: slots hold [4, 1, 2, 3]" in evidence.output
    assert "after position 6: slots hold [4, 5, 6, 3]" in evidence.output


def test_decoding_equals_the_window_mask(evidence):
    """Rotated by positions it is right; by slots it is wrong unless all slots align."""
    first = evidence.names["first"]
    assert first["position t"] == []
    assert first["slot t mod W"] == [4, 5, 6, 8, 9, 10]


def test_order_matters_only_to_a_bias(evidence):
    """Softmax does not see the order of keys; a bias by slot does."""
    moved = evidence.names["moved"]
    assert moved["none"] < 1e-12
    assert moved["ALiBi"] > 0.01
