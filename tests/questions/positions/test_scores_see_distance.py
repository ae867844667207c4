"""The facts of the page on relative positions under RoPE."""

import pytest

from tests.running import run_main

OFFSETS = (-5, 0, 1, 7)


@pytest.fixture(scope="module")
def names():
    """Run the evidence."""
    return run_main("snippets.questions.positions.scores_see_distance").names


def test_the_start_does_not_matter(names):
    """At each of four offsets, scores agree up to rounding."""
    assert max(names["spread"]["RoPE", offset] for offset in OFFSETS) < 1e-9


def test_the_offset_matters(names):
    """The identity would give one score for all offsets."""
    means = [names["mean"]["RoPE", offset] for offset in OFFSETS]
    assert min(abs(a - b) for a in means for b in means if a is not b) > 0.05


def test_added_codes_feel_the_start(names):
    """With addition the same offset gives other scores elsewhere."""
    assert min(names["spread"]["added", offset] for offset in OFFSETS) > 1
