"""Samples of a batch."""


def test_softmax_without_dimension_normalizes_over_the_batch(evidence):
    """As dim=0 does."""
    moved = evidence.names["moved"]
    assert moved["dim=-1"] == 0
    assert moved["no dim"] == moved["dim=0"] > 1


def test_padding_counts_unless_masked(evidence):
    """With the mask it equals the sequence alone."""
    gap = evidence.names["gap"]
    assert gap["padding mask"] < 1e-6
    assert gap["no mask"] > 0.1
