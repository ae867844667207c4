"""What the page on other resolutions states."""

import pytest
import torch

from snippets.questions.vision.another_resolution import resize, true_table


def test_the_page_prints_what_it_quotes(evidence):
    assert "224: 197 positions, 384: 577 positions" in evidence.output
    assert f"{384:6} {577:7} {577**2:14,} {8.6:12.1f}" in evidence.output


def test_a_list_is_no_grid(evidence):
    error = evidence.names["error"]
    assert error["as a grid"] * 20 < error["as a list"]
    assert error["as a grid"] * 20 < error["first rows, rest new"]


@pytest.mark.parametrize("side", [7, 14, 24, 32])
def test_class_token_stays_and_the_grid_follows(side):
    old_P8 = true_table(14)
    new_P8 = resize(old_P8, side)
    assert new_P8[0].equal(old_P8[0])
    assert (new_P8 - true_table(side)).abs().mean() < 0.02


def test_rows_do_not_turn_into_columns():
    """Only the first four numbers tell the row: they are constant along a row."""
    grid_XX8 = resize(true_table(14), 24)[1:].view(24, 24, 8)
    assert torch.allclose(grid_XX8[:, 0, :4], grid_XX8[:, -1, :4], atol=1e-5)
    assert not torch.allclose(grid_XX8[0, :, :4], grid_XX8[-1, :, :4], atol=0.1)
