"""The facts that the page on decoding and one pass states."""

import pytest

from tests.running import run_main


@pytest.fixture
def demonstration():
    """Run the evidence."""
    return run_main("snippets.questions.cache.does_decoding_equal_forward")


def test_any_cut_equals_one_pass(demonstration):
    """Five ways to feed 12 positions to two layers agree to rounding in float64."""
    gap = demonstration.names["gap"]
    assert len(gap) == 5
    assert all(sum(cuts) == 12 for cuts in gap)
    assert max(gap.values()) < 1e-12


def test_single_precision_differs_by_rounding(demonstration):
    """In float32 the difference is small."""
    assert demonstration.names["single"] < 1e-5


def test_wrong_masks_spare_some_positions(demonstration):
    """Top-left spares the first chunk, no mask the last of each chunk."""
    assert demonstration.names["wrong"] == {
        "is_causal=True": [5, 6, 7, 8, 9, 10, 11],
        "no mask": [0, 1, 2, 3, 5, 6, 7, 8, 10],
        "bottom right": [],
    }
