"""Axes of heads and positions exchanged."""

import re

import torch


def test_wrong_axes_raise_nothing_and_tokens_never_meet(evidence):
    """The right order lets the first token reach all others."""
    assert "wrong: shape (2, 7, 5, 8), tokens 1–6 move 0.00" in evidence.output
    shown = re.search(r"right: .* move ([\d.]+)", evidence.output)
    assert float(shown[1]) > 0.1


def test_the_right_one_is_attention_over_positions(evidence):
    """Written out by axes, head by head."""
    x_BTHK = evidence.names["x_BTHK"]
    score_BHTS = torch.einsum("bthk,bshk->bhts", x_BTHK, x_BTHK) / 8**0.5
    out_BTHK = torch.einsum("bhts,bshk->bthk", score_BHTS.softmax(-1), x_BTHK)
    torch.testing.assert_close(evidence.names["right"](x_BTHK), out_BTHK)
