"""The facts of the page on order without positional encoding."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def demonstration():
    """Run the evidence."""
    return run_main("snippets.questions.positions.order_without_encoding")


def test_only_two_causal_layers_see_the_order(demonstration):
    """Swapping two tokens moves the last one in this case only; the rest is asserted."""
    assert set(demonstration.names["moved"]) == {
        ("both directions", 1),
        ("both directions", 2),
        ("causal", 1),
    }
    assert max(demonstration.names["moved"].values()) < 1e-12
    assert demonstration.output.count("moved by") == 4


def test_uniform_weights_are_a_clock(demonstration):
    """Every position from 1 to 1024 can be read from its output."""
    assert "positions read correctly: 1024 of 1024" in demonstration.output
    assert "['1.000', '0.500', '0.333', '0.250']" in demonstration.output


def test_equal_tokens_have_no_clock(demonstration):
    """Without a recognizable first token nothing tells positions apart."""
    assert demonstration.names["spread"] < 1e-12
