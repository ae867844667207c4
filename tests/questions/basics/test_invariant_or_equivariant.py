"""Self-attention is equivariant; pooling makes it invariant; a causal mask neither."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def gap():
    """Run the evidence and return the differences."""
    return run_main("snippets.questions.basics.invariant_or_equivariant").names["gap"]


def test_not_invariant(gap):
    """The output in the same row changes."""
    assert gap["self-attention, same rows"] == pytest.approx(3.49, abs=0.01)


def test_equivariant(gap):
    """The output is permuted as the input is."""
    assert gap["self-attention, permuted rows"] < 1e-5


def test_pooled_is_invariant(gap):
    """A mean or a single query does not see the order."""
    assert gap["self-attention, then mean"] < 1e-5
    assert gap["one learned query"] < 1e-5


def test_causal_is_not_equivariant(gap):
    """A causal mask brings the order in."""
    assert gap["causal, permuted rows"] == pytest.approx(0.76, abs=0.01)
