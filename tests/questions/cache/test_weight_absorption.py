"""The facts that the page on weight absorption states."""

import torch


def test_both_orders_are_equal(evidence):
    """In float64 the two forms differ by rounding, and W_UV merges into W_O."""
    names = evidence.names
    assert names["gap"] < 1e-12
    assert torch.allclose(names["one_BTD"], names["two_BTD"])


def test_absorption_pays_for_few_queries(evidence):
    """Expanded work is less from 103, 164 and 171 queries on."""
    assert evidence.names["even"] == {256: 103, 4096: 164, 65536: 171}
    assert "S =  4096, one query: expanded 117.3 × absorbed" in evidence.output


def test_the_formula_is_what_runs(evidence):
    """Counted FLOPs equal the formula: the last shape was checked in the snippet."""
    names = evidence.names
    assert names["counted"] == list(names["flops"](64, 64, **names["small"]))


def test_multiplying_out_takes_three_times_the_weights(evidence):
    """W_UQ and W_UK as one matrix a head: 100.7 million weights instead of 33.6."""
    assert evidence.names["merged"] == 3 * evidence.names["apart"]
    assert "33.6 M weights, multiplied out 100.7 M" in evidence.output
