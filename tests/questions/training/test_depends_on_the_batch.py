"""Samples of a batch."""

import pytest
import torch
import torch.nn.functional as F


def test_softmax_without_dimension_normalizes_over_the_batch(evidence):
    """As dim=0 does."""
    moved = evidence.names["moved"]
    assert moved["dim=-1"] == 0
    assert moved["no dim"] == moved["dim=0"] > 1


def test_with_four_axes_it_normalizes_over_heads(evidence):
    """Dimension 1, not the last."""
    score_BHTT = evidence.names["score_BHTT"]
    with pytest.warns(UserWarning, match="Implicit dimension"):
        guessed_BHTT = F.softmax(score_BHTT)
    assert torch.equal(guessed_BHTT, score_BHTT.softmax(1))
    assert not guessed_BHTT.sum(-1).allclose(torch.ones(6))


def test_padding_counts_unless_masked(evidence):
    """With the mask it equals the sequence alone."""
    gap = evidence.names["gap"]
    assert gap["padding mask"] < 1e-6
    assert gap["no mask"] > 0.1
