"""Self-attention is equivariant; pooling makes it invariant; a causal mask neither."""

import pytest


def test_not_invariant(evidence):
    """The output in the same row changes."""
    assert evidence.names["gap"]["self-attention, same rows"] == pytest.approx(
        3.49, abs=0.01
    )


def test_equivariant(evidence):
    """The output is permuted as the input is."""
    assert evidence.names["gap"]["self-attention, permuted rows"] < 1e-5


def test_pooled_is_invariant(evidence):
    """A mean or a single query does not see the order."""
    assert evidence.names["gap"]["self-attention, then mean"] < 1e-5
    assert evidence.names["gap"]["one learned query"] < 1e-5


def test_causal_is_not_equivariant(evidence):
    """A causal mask brings the order in."""
    assert evidence.names["gap"]["causal, permuted rows"] == pytest.approx(
        0.76, abs=0.01
    )
