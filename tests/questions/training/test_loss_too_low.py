"""Leaks of the future."""

import math

import pytest


def test_the_property_finds_each_leak(evidence):
    """And lets the right model pass."""
    found = dict(evidence.names["found"])
    assert found.pop("right") == []
    assert found.pop("triangle one too wide") == [3]
    assert list(found.values()) == [[0, 1, 2, 3]] * 3


def test_a_leak_beats_what_is_possible(evidence):
    """Random tokens cannot be guessed."""
    loss = evidence.names["loss"]
    assert loss["sees one ahead"] < 0.1
    assert loss["sees the past"] == pytest.approx(math.log(20), abs=0.1)
