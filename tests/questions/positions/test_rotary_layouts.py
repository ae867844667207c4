"""The facts of the page on the layouts of RoPE."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def demonstration():
    """Run the evidence."""
    return run_main("snippets.questions.positions.rotary_layouts")


def test_layouts_differ_by_a_permutation(demonstration):
    """The vectors differ, and agree after the channels are reordered."""
    assert demonstration.names["apart"] > 1
    assert demonstration.names["same"] < 1e-10


def test_scores_need_reordered_weights(demonstration):
    """Reordered rows give the same scores, weights left alone do not."""
    assert demonstration.names["gaps"]["reordered"] < 1e-10
    assert demonstration.names["gaps"]["left alone"] > 1


def test_half_a_table_raises(demonstration):
    """Eight columns of cosines do not fit sixteen of queries."""
    assert "tensor a (16) must match the size of tensor b (8)" in demonstration.output


def test_a_mixed_expansion_is_no_rotation(demonstration):
    """Lengths are kept by the right expansion only."""
    assert demonstration.names["changes"]["twice in a row"] < 1e-5
    assert demonstration.names["changes"]["each column twice"] > 0.05
