"""The facts of the page on adding positions."""

import pytest


def test_positions_are_read_up_to_a_neighbor(evidence):
    """About 94% of the positions, and nearly all to within one."""
    names = evidence.names
    assert names["place"] == pytest.approx(0.94, abs=0.02)
    assert names["beside"] > 0.99


def test_the_sum_keeps_the_word(evidence):
    """At 512 dimensions all words are read."""
    assert evidence.names["right"][512, True, 0] == 1


def test_more_dimensions_keep_more(evidence):
    """A quarter at 8 dimensions, about 88% at 16, nearly all from 32 on."""
    shares = [evidence.names["right"][size, True, 0] for size in (8, 16, 32)]
    assert shares == pytest.approx([0.25, 0.88, 1], abs=0.02)


def test_small_embeddings_are_drowned_for_the_table(evidence):
    """Without the factor √D about 4% of the words are read at 512 dimensions."""
    assert evidence.names["right"][512, False, 0] == pytest.approx(0.04, abs=0.02)


def test_drowned_words_are_still_there(evidence):
    """A readout that ignores 32 directions of the codes reads all of them."""
    assert evidence.names["right"][512, False, 32] == 1
