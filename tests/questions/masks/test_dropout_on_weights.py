"""Dropout on weights."""

import pytest
import torch

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.masks.dropout_on_weights")


def test_rows_do_not_sum_to_one_but_their_mean_does(page):
    """Each kept weight is 1.25 times."""
    names = page.names
    row_NT = names["row_NT"]
    assert row_NT.max() == pytest.approx(1.25, abs=0.01)
    assert row_NT.min() < 0.6
    assert row_NT.mean() == pytest.approx(1, abs=0.02)


def test_nothing_is_left_to_do_in_evaluation(page):
    """The function of PyTorch drops whenever it is told to."""
    names = page.names
    assert not torch.equal(names["first_1TK"], names["second_1TK"])
