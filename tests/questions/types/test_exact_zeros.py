"""Sparsemax is the projection onto the simplex; softmax has no zeros."""

import torch

from snippets.questions.types.exact_zeros import sparsemax


def test_sparsemax_is_the_projection():
    """It sums to one, and no step towards a corner of the simplex comes nearer."""
    for _ in range(20):
        score = torch.randn(7)
        weight = sparsemax(score)
        assert weight.min() >= 0
        torch.testing.assert_close(weight.sum(), torch.tensor(1.0))
        # The nearest point of a convex set: (score - p) · (corner - p) <= 0.
        slack = (score - weight) @ (torch.eye(7) - weight).T
        assert slack.max() <= 1e-5


def test_a_lead_of_one_keeps_one():
    """At a lead of 1 the second is out, just below it is in."""
    assert sparsemax(torch.tensor([1.0, 0.0])).tolist() == [1.0, 0.0]
    assert sparsemax(torch.tensor([0.99, 0.0])).min() > 0


def test_counts_of_positive_weights(evidence):
    """Softmax keeps 64 at any scale, sparsemax from 64 down to 1."""
    support = evidence.names["support"]
    assert {row["softmax"] for row in support.values()} == {64}
    assert support[0.001]["sparsemax"] == 64
    assert support[1]["sparsemax"] == support[10]["sparsemax"] == 1


def test_zeros_get_no_gradient(evidence):
    """Only scores with a positive weight are reached."""
    assert evidence.names["reached"]["softmax"] == [True] * 4
    assert evidence.names["reached"]["sparsemax"] == [True, True, False, False]
