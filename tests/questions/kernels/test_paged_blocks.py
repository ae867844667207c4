"""PagedAttention and what fills the cache."""

import pytest

from snippets.questions.kernels.paged_blocks import Request, first_hole


def test_blocks_out_of_order_change_nothing(evidence):
    """Three sequences whose blocks interleave, in a pool full of leftovers."""
    assert evidence.names["cache"].tables["a"] == [15, 12, 9]
    assert max(evidence.names["gap"]) < 1e-6


def test_reserving_wastes_most_and_blocks_hardly_anything(evidence):
    """The shares that the page quotes."""
    filled = evidence.names["filled"]
    for kind, tokens, empty, free in (
        ("maximum", 0.30, 0.70, 0.0),
        ("final", 0.39, 0.42, 0.19),
        ("blocks", 0.96, 0.02, 0.03),
    ):
        assert list(filled[kind].values()) == pytest.approx(
            [tokens, empty, free], abs=0.006
        )


def test_holes_are_found_first_fit():
    """Between, after, and none; touching pieces leave no hole."""
    taken = [Request(10, 5, 0, 1), Request(0, 4, 0, 1)]
    assert first_hole(taken, 6, 20) == 4
    assert first_hole(taken, 5, 20) == 4
    assert first_hole([Request(0, 10, 0, 1), Request(10, 5, 0, 1)], 5, 20) == 15
    assert first_hole(taken, 7, 20) is None
    assert first_hole([], 20, 20) == 0
