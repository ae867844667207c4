"""The facts of the page on the layouts of RoPE."""

import pytest


def test_layouts_differ_by_a_permutation(evidence):
    """The vectors differ, and agree after the channels are reordered."""
    assert evidence.names["apart"] > 1
    assert evidence.names["same"] < 1e-10


def test_scores_need_reordered_weights(evidence):
    """Reordered rows give the same scores, weights left alone do not."""
    assert evidence.names["gaps"]["reordered"] < 1e-10
    assert evidence.names["gaps"]["left alone"] > 1


def test_half_a_table_raises(evidence):
    """Eight columns of cosines do not fit sixteen of queries."""
    assert "tensor a (16) must match the size of tensor b (8)" in evidence.output


def test_a_mixed_expansion_is_no_rotation(evidence):
    """Lengths are kept by the right expansion only."""
    assert evidence.names["changes"]["twice in a row"] < 1e-5
    assert evidence.names["changes"]["each column twice"] == pytest.approx(
        0.27, abs=0.02
    )
