"""What the page on early and late fusion states."""

import itertools
import math

import pytest


def test_late_fusion_learns_or_but_not_xor(evidence):
    loss = evidence.names["loss"]
    assert loss["late", "or"] < 0.2
    assert loss["late", "xor"] == pytest.approx(math.log(2), abs=0.03)


@pytest.mark.parametrize("design", ["middle", "early"])
def test_meeting_before_the_score_learns_xor(evidence, design):
    assert evidence.names["loss"][design, "xor"] < 0.1


def test_no_sum_of_two_scores_is_right_on_all_four_pairs():
    """On a grid of scores: three pairs of four is the most that a sum gets right."""
    grid = [x / 2 for x in range(-4, 5)]
    best = 0
    for f0, f1, g0, g1 in itertools.product(grid, repeat=4):
        table = {(0, 0): f0 + g0, (0, 1): f0 + g1, (1, 0): f1 + g0, (1, 1): f1 + g1}
        best = max(best, sum((s > 0) == (a != b) for (a, b), s in table.items()))
    assert best == 3
