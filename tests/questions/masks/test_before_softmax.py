"""The order of mask and softmax."""

import math

import pytest
import torch


def test_rows_sum_to_one_only_with_the_mask_first(evidence):
    """Masked afterwards, rows lose what the hidden keys had."""
    names = evidence.names
    assert (names["after_TT"].sum(-1)[:-1] < 0.95).all()
    torch.testing.assert_close(names["before_TT"].sum(-1), torch.ones(6))


def test_dividing_by_the_row_sum_repairs_it(evidence):
    """Renormalized rows are those of the mask before."""
    names = evidence.names
    torch.testing.assert_close(names["again_TT"], names["before_TT"])


def test_the_future_moves_a_visible_weight(evidence):
    """Only with the mask after the softmax."""
    names = evidence.names
    assert names["moved"]["before"] == 0
    assert names["moved"]["after"] == pytest.approx(
        1 / 6 - 1 / (5 + math.exp(3)), abs=1e-6
    )
