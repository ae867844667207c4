"""What scores of one head can and cannot express."""

import pytest


def test_only_corners_of_the_hull_can_win(evidence):
    """Two on a line, all on a circle, the outer ones when half is inside."""
    assert list(evidence.names["count"].values()) == [2, 16, 8]


def test_the_circle_needs_scores_of_order_s_squared(evidence):
    """Four times the keys, sixteen times the factor, from 32 on."""
    needed = evidence.names["needed"]
    assert needed[8] == pytest.approx(10, abs=0.5)
    assert needed[512] == pytest.approx(38397, rel=1e-3)
    for size in (32, 128):
        assert needed[4 * size] / needed[size] == pytest.approx(16, rel=0.01)


def test_one_average_cannot_keep_two_roles_apart(evidence):
    """Swapping two values changes what two heads give, not what one gives."""
    assert evidence.names["same"] == {"one head": True, "two heads": False}
