"""The facts of the page on why RoPE extrapolates poorly."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def names():
    """Run the evidence."""
    return run_main("snippets.questions.positions.rotary_extrapolation").names


def test_slow_pairs_meet_unseen_angles(names):
    """All 18 pairs that never finished a turn do so when nothing is changed."""
    assert names["unseen"]["plain"] == 18


def test_interpolation_and_yarn_leave_none(names):
    """NTK-aware leaves some: it slows all but the last by less than the scale."""
    assert names["unseen"]["PI"] == names["unseen"]["YaRN"] == 0
    assert 0 < names["unseen"]["NTK-aware"] < 18


def test_only_interpolation_blurs_neighbors(names):
    """The fastest pair keeps its step in all but PI."""
    assert names["step"] == pytest.approx(
        {"plain": 1, "PI": 0.25, "NTK-aware": 1, "YaRN": 1}
    )
