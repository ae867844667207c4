"""Tolerances."""

import torch


def test_errors_follow_the_precision(evidence):
    """By about the factor of its last place."""
    error = evidence.names["error"]
    assert 1e-8 < error[torch.float32] < 1e-6
    assert 5e-5 < error[torch.float16] < 1e-3 < error[torch.bfloat16] < 1e-2


def test_a_loose_tolerance_accepts_a_wrong_scale(evidence):
    """A tight one does not."""
    assert (
        "scale of 1/√63: off by 2.0e-02; atol=1e-1 accepts it: True" in evidence.output
    )
