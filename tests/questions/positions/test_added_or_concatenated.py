"""The facts of the page on adding positions."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def right():
    """Run the evidence."""
    name = "snippets.questions.positions.added_or_concatenated"
    return run_main(name).names["right"]


def test_positions_are_read_up_to_a_neighbor():
    """About 94% of the positions, and nearly all to within one."""
    names = run_main("snippets.questions.positions.added_or_concatenated").names
    assert names["place"] == pytest.approx(0.94, abs=0.02)
    assert names["beside"] > 0.99


def test_the_sum_keeps_the_word(right):
    """At 512 dimensions all words are read."""
    assert right[512, True] == 1


def test_more_dimensions_keep_more(right):
    """The share grows with the dimensions."""
    assert right[8, True] < right[16, True] < right[32, True] <= right[512, True]


def test_small_embeddings_are_drowned(right):
    """Without the factor √D most words are lost at the same 512 dimensions."""
    assert right[512, False] < 0.5
