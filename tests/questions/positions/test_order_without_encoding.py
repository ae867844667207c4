"""The facts of the page on order without positional encoding."""

import pytest


def test_only_two_causal_layers_see_the_order(evidence):
    """Swapping two tokens moves the last one by about 0.1 in this case only."""
    assert evidence.names["by_order"] == pytest.approx(0.1, abs=0.05)
    assert set(evidence.names["moved"]) == {
        ("both directions", 1),
        ("both directions", 2),
        ("causal", 1),
    }
    assert max(evidence.names["moved"].values()) < 1e-12
    assert evidence.output.count("moved by") == 4


def test_uniform_weights_are_a_clock(evidence):
    """Every position from 1 to 1024 can be read from its output."""
    assert "positions read correctly: 1024 of 1024" in evidence.output
    assert "['1.000', '0.500', '0.333', '0.250']" in evidence.output


def test_equal_tokens_have_no_clock(evidence):
    """Without a recognizable first token nothing tells positions apart."""
    assert evidence.names["spread"] < 1e-12
