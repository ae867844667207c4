"""The facts that the page on batches of different lengths states."""

import pytest

from tests.running import run_main


@pytest.fixture
def demonstration():
    """Run the evidence."""
    return run_main("snippets.questions.cache.how_to_batch_ragged_lengths")


def test_each_sequence_needs_its_own_length_and_position(demonstration):
    """Both mistakes spare the longest sequence only."""
    assert demonstration.names["wrong"] == {
        "own length, own position": [],
        "no mask": [0, 1],
        "position of the longest": [0, 1],
    }


def test_packed_equals_apart(demonstration):
    """22 keys in a row with a mask by owner give what each gives alone."""
    assert demonstration.names["gap"] < 1e-12
    assert "packed: 22 keys, padded: 36" in demonstration.output


def test_refilling_slots_saves_steps(demonstration):
    """The same 64 requests take 1488 steps in fixed batches, 964 when refilled."""
    names = demonstration.names
    assert (names["static"], names["continuous"]) == (1488, 964)
    assert names["busy"]["static"] == pytest.approx(0.59, abs=0.005)
    assert names["busy"]["continuous"] == pytest.approx(0.91, abs=0.005)
