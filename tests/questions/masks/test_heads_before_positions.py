"""Axes of heads and positions exchanged."""

import re


def test_wrong_axes_raise_nothing_and_tokens_never_meet(evidence):
    """The right order lets the first token reach all others."""
    assert "wrong: shape (2, 5, 5, 8), tokens 1–4 move 0.00" in evidence.output
    shown = re.search(r"right: .* move ([\d.]+)", evidence.output)
    assert float(shown[1]) > 0.1
