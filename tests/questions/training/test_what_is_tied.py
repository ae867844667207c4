"""Weight tying."""

import math

import pytest


def test_the_printed_sizes_fit_tied_embeddings_and_layers_apart(evidence):
    """At four depths, within 3 million; without tying 36 million off."""
    for layers, printed in ((2, 36), (4, 50), (6, 65), (8, 80)):
        tied, apart, _ = evidence.names["millions"][layers]
        assert tied == pytest.approx(printed, abs=3)
        assert apart - printed > 30


def test_shared_layers_would_not_grow_with_depth(evidence):
    """26 million at every depth."""
    shared = {round(sizes[2], 3) for sizes in evidence.names["millions"].values()}
    assert len(shared) == 1
    assert shared.pop() == pytest.approx(26.3, abs=0.1)


def test_the_gradient_is_the_sum_of_both_uses(evidence):
    """The output use reaches every row, the input use only words that occurred."""
    assert evidence.names["gap"] < 1e-6
    assert evidence.names["rows"] == [6, 20]


def test_a_wide_start_costs(evidence):
    """Ten times the loss of a fair guess with standard deviation 1."""
    loss = evidence.names["loss"]
    assert loss["1"] > 10 * math.log(1000)
    assert loss["1/√D"] == pytest.approx(math.log(1000) + 0.5, abs=0.2)
