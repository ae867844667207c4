"""The facts that the page on batches of different lengths states."""

import pytest


def test_each_sequence_needs_its_own_length_and_position(evidence):
    """Both mistakes spare the longest sequence only."""
    assert evidence.names["wrong"] == {
        "own length, own position": [],
        "no mask": [0, 1],
        "position of the longest": [0, 1],
    }


def test_packed_equals_apart(evidence):
    """22 keys in a row with a mask by owner give what each gives alone."""
    assert evidence.names["gap"] < 1e-12
    assert "packed: 22 keys, padded: 36" in evidence.output


def test_refilling_slots_saves_steps(evidence):
    """The same 64 requests take 1488 steps in fixed batches, 964 when refilled."""
    names = evidence.names
    assert (names["static"], names["continuous"]) == (1488, 964)
    assert names["busy"]["static"] == pytest.approx(0.59, abs=0.005)
    assert names["busy"]["continuous"] == pytest.approx(0.91, abs=0.005)
