"""Two conventions of PyTorch for a boolean mask."""

import pytest


def test_the_functions_agree_when_one_mask_is_inverted(evidence):
    """And only then."""
    names = evidence.names
    assert names["right"] < 1e-6
    assert not names["wrong"] < 0.01


def test_the_inverted_mask_lets_the_future_in(evidence):
    """Earlier outputs move with the last value."""
    names = evidence.names
    assert names["moved"]["True may attend"] == 0
    assert names["moved"]["inverted"] == pytest.approx(1, abs=0.05)
