"""Dropout on weights."""

import pytest
import torch


def test_rows_do_not_sum_to_one_but_their_mean_does(evidence):
    """Each kept weight is 1.25 times."""
    names = evidence.names
    row_NT = names["row_NT"]
    assert row_NT.max() == pytest.approx(1.25, abs=0.01)
    assert row_NT.min() < 0.6
    assert row_NT.mean() == pytest.approx(1, abs=0.02)


def test_nothing_is_left_to_do_in_evaluation(evidence):
    """The function of PyTorch drops whenever it is told to."""
    names = evidence.names
    assert not torch.equal(names["first_1TK"], names["second_1TK"])
