"""Comparing with the library."""


def test_with_copied_weights_only_rounding_is_left(evidence):
    """A missing scale shows."""
    gap = evidence.names["gap"]
    assert gap["copied"] < 1e-5
    assert gap["not copied"] > 0.3
    assert gap["copied, no square root"] > 0.05


def test_one_position_hides_the_fault(evidence):
    """Every weight is 1."""
    assert evidence.names["alike"] < 1e-6
