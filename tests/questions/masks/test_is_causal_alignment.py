"""Which corner the causal triangle stands in."""

import torch


def test_one_query_sees_one_key(evidence):
    """With is_causal a step of decoding returns the first value."""
    names = evidence.names
    torch.testing.assert_close(names["step_111V"], names["first_111V"])


def test_one_query_needs_no_causal_mask(evidence):
    """Without one it equals the last row of the full pass."""
    names = evidence.names
    torch.testing.assert_close(names["free_111V"], names["last_111V"])


def test_a_chunk_needs_the_lower_right_corner(evidence):
    """Only there it equals the full pass."""
    assert "top left: keys per query [1, 2, 3]" in evidence.output
    assert "bottom right: keys per query [4, 5, 6]" in evidence.output
    error = evidence.names["error"]
    assert error["bottom right"] < 1e-6 < 0.1 < error["top left"]
