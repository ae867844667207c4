"""The facts that the page on decoding and one pass states."""


def test_any_cut_equals_one_pass(evidence):
    """Five ways to feed 12 positions to two layers agree to rounding in float64."""
    gap = evidence.names["gap"]
    assert len(gap) == 5
    assert all(sum(cuts) == 12 for cuts in gap)
    assert max(gap.values()) < 1e-12


def test_single_precision_differs_by_rounding(evidence):
    """In float32 the difference is small, and not 0."""
    assert 1e-8 < evidence.names["single"] < 1e-6


def test_wrong_masks_and_positions_spare_some_positions(evidence):
    """Top-left and positions from 0 spare the first chunk, no mask the last of each."""
    assert evidence.names["wrong"] == {
        "is_causal=True": [5, 6, 7, 8, 9, 10, 11],
        "no mask": [0, 1, 2, 3, 5, 6, 7, 8, 10],
        "bottom right": [],
        "positions from 0": [5, 6, 7, 8, 9, 10, 11],
    }
