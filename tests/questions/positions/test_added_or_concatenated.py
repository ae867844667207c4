"""The facts of the page on adding positions."""

import pytest

from tests.running import run_main


def test_positions_are_read_up_to_a_neighbor():
    """About 94% of the positions, and nearly all to within one."""
    names = run_main("snippets.questions.positions.added_or_concatenated").names
    assert names["place"] == pytest.approx(0.94, abs=0.02)
    assert names["beside"] > 0.99


def test_the_sum_keeps_the_word(evidence):
    """At 512 dimensions all words are read."""
    assert evidence.names["right"][512, True] == 1


def test_more_dimensions_keep_more(evidence):
    """The share grows with the dimensions."""
    assert (
        evidence.names["right"][8, True]
        < evidence.names["right"][16, True]
        < evidence.names["right"][32, True]
        <= evidence.names["right"][512, True]
    )


def test_small_embeddings_are_drowned(evidence):
    """Without the factor √D most words are lost at the same 512 dimensions."""
    assert evidence.names["right"][512, False] < 0.5
