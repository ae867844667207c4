"""The facts of the page on why RoPE extrapolates poorly."""

import pytest


def test_slow_pairs_meet_unseen_angles(evidence):
    """All 18 pairs that never finished a turn do so when nothing is changed."""
    assert evidence.names["unseen"]["plain"] == 18


def test_interpolation_and_yarn_leave_none(evidence):
    """NTK-aware leaves 17: it slows all but the last by less than the scale."""
    assert evidence.names["unseen"]["PI"] == evidence.names["unseen"]["YaRN"] == 0
    assert evidence.names["unseen"]["NTK-aware"] == 17


def test_only_interpolation_blurs_neighbors(evidence):
    """The fastest pair keeps its step in all but PI."""
    assert evidence.names["step"] == pytest.approx(
        {"plain": 1, "PI": 0.25, "NTK-aware": 1, "YaRN": 1}
    )
