"""The order of mask and softmax."""

import math

import pytest
import torch

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.masks.before_softmax")


def test_rows_sum_to_one_only_with_the_mask_first(page):
    """Masked afterwards, rows lose what the hidden keys had."""
    names = page.names
    assert (names["after_TT"].sum(-1)[:-1] < 0.95).all()
    torch.testing.assert_close(names["before_TT"].sum(-1), torch.ones(6))


def test_dividing_by_the_row_sum_repairs_it(page):
    """Renormalized rows are those of the mask before."""
    names = page.names
    torch.testing.assert_close(names["again_TT"], names["before_TT"])


def test_the_future_moves_a_visible_weight(page):
    """Only with the mask after the softmax."""
    names = page.names
    assert names["moved"]["before"] == 0
    assert names["moved"]["after"] == pytest.approx(
        1 / 6 - 1 / (5 + math.exp(3)), abs=1e-6
    )
