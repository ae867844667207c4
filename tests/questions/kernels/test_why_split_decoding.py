"""Split decoding."""

import pytest


def test_one_query_leaves_most_units_idle(evidence):
    """32 pieces for 108 units; with 16 parts there are more than enough."""
    pieces = evidence.names["pieces"]
    assert pieces["decoding, one query"] == 32
    assert pieces["decoding, keys in 16 parts"] == 512
    assert pieces["prefill, tiles of 64 queries"] == 2048


def test_parts_merge_exactly(evidence):
    """Whether or not they are of equal size."""
    assert set(evidence.names["gap"]) == {1, 7, 16, 64}
    assert max(evidence.names["gap"].values()) < 1e-12


def test_work_does_not_shrink(evidence):
    """FLOPs grow by what the merge takes."""
    ratio = evidence.names["ratio"]
    assert ratio[1] >= 1
    assert ratio[1] < ratio[16] < ratio[64] < 1.01


def test_the_gain_is_bounded_by_the_idle_units(evidence):
    """Best at 64 parts; 108 / 32 is the limit; 1024 parts are worse again."""
    wait = evidence.names["wait"]
    assert min(wait, key=wait.get) == 64
    assert wait[1] / wait[64] == pytest.approx(108 / 32, rel=0.02)
    assert wait[1024] > wait[64]
