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
    """Unseen random tokens cannot be guessed."""
    unseen = evidence.names["unseen"]
    assert unseen["sees one ahead"] < 0.1
    assert unseen["sees the past"] > math.log(20)


def test_memory_alone_gets_below_the_entropy_in_training(evidence):
    """But not far, and not on new tokens."""
    fair = evidence.names["loss"]["sees the past"]
    assert fair < math.log(20)
    assert fair == pytest.approx(math.log(20), abs=0.1)
