"""The facts that the page on the 8 of GQA-8 states."""

import pytest

from tests.running import run_main


@pytest.fixture
def demonstration():
    """Run the evidence."""
    return run_main("snippets.questions.cache.groups_or_group_size")


def test_eight_heads_of_keys_have_four_readers(demonstration):
    """Of 32 query heads, 4 read a head of GQA-8; the other reading gives 8."""
    assert demonstration.names["right"] == [0, 1, 2, 3]
    assert demonstration.names["wrong"] == [0, 1, 2, 3, 4, 5, 6, 7]


def test_only_one_reading_makes_one_group_mqa(demonstration):
    """G = 1 is MQA, as in the paper; a group size of 1 would be MHA."""
    assert "GQA-1 as G = 1: MQA 32 readers" in demonstration.output
    assert "GQA-1 as H/G = 1: MHA 1 readers" in demonstration.output


def test_the_readings_meet_at_64_heads_only(demonstration):
    """The misread cache is half, equal and twice for 32, 64 and 128 query heads."""
    assert demonstration.names["ratio"] == {"8B": 0.5, "70B": 1.0, "405B": 2.0}
