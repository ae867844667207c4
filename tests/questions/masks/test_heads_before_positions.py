"""Axes of heads and positions exchanged."""

import re

import pytest

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.masks.heads_before_positions")


def test_wrong_axes_raise_nothing_and_tokens_never_meet(page):
    """The right order lets the first token reach all others."""
    assert "wrong: shape (2, 5, 5, 8), tokens 1–4 move 0.00" in page.output
    shown = re.search(r"right: .* move ([\d.]+)", page.output)
    assert float(shown[1]) > 0.1
