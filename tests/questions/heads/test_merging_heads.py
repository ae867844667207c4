"""Merging heads."""

import pytest

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.heads.merging_heads")


def test_only_transpose_and_flatten_keep_positions_apart(page):
    """The others move other rows."""
    moved = {name: rows.tolist() for name, rows in page.names["moved"].items()}
    assert moved["transpose, flatten"] == [5]
    assert moved["reshape alone"] == [1, 2, 4, 5]
    assert moved["transpose(-1, -2)"] == [0, 1, 2, 3, 4, 5]


def test_each_row_holds_one_position(page):
    """The tens digit is the position."""
    assert "flatten: [[0, 1, 100, 101], [10, 11, 110, 111]" in page.output


def test_view_refuses_a_transposed_tensor(page):
    """It says why."""
    assert "view size is not compatible" in page.output
