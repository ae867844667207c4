"""The facts that the page on weight absorption states."""

import pytest
import torch

from tests.running import run_main


@pytest.fixture
def demonstration():
    """Run the evidence."""
    return run_main("snippets.questions.cache.weight_absorption")


def test_both_orders_are_equal(demonstration):
    """In float64 the two forms differ by rounding, and W_UV merges into W_O."""
    names = demonstration.names
    assert names["gap"] < 1e-12
    assert torch.allclose(names["one_BTD"], names["two_BTD"])


def test_absorption_pays_for_few_queries(demonstration):
    """Expanded work is less from 103, 164 and 171 queries on."""
    assert demonstration.names["even"] == {256: 103, 4096: 164, 65536: 171}
    assert "S =  4096, one query: expanded 117.3 × absorbed" in demonstration.output


def test_the_formula_is_what_runs(demonstration):
    """Counted FLOPs equal the formula: the last shape was checked in the snippet."""
    names = demonstration.names
    assert names["counted"] == list(names["flops"](64, 64, **names["small"]))


def test_multiplying_out_takes_three_times_the_weights(demonstration):
    """W_UQ and W_UK as one matrix a head: 100.7 million weights instead of 33.6."""
    assert demonstration.names["merged"] == 3 * demonstration.names["apart"]
    assert "33.6 M weights, multiplied out 100.7 M" in demonstration.output
