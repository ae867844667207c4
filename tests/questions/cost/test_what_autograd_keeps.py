"""What attention keeps for its backward pass."""

import pytest


def test_only_the_weights_are_square(evidence):
    """The scores themselves are not kept."""
    assert evidence.output.count("(4, 512, 512)") == 1
    total = evidence.names["total"]
    assert total["naive", 1024] == 4 * 4 * 1024**2 + 3 * 4 * 4 * 1024 * 32


def test_twice_the_length(evidence):
    """Almost four times as much, unless fused."""
    total = evidence.names["total"]
    assert total["naive", 1024] / total["naive", 512] > 3.5
    assert total["SDPA", 1024] / total["SDPA", 512] == pytest.approx(2, rel=0.05)


def test_dropout_adds_two_copies_and_recomputing_leaves_inputs(evidence):
    """One of them may be bytes."""
    total = evidence.names["total"]
    inputs = 3 * 4 * 4 * 1024 * 32
    assert total["naive, dropout", 1024] >= inputs + 9 * 4 * 1024**2
    assert total["recompute", 1024] == inputs


def test_a_model_of_32_layers(evidence):
    """128 GiB for one sequence of 8,192 tokens."""
    assert evidence.names["need"][8192] == 128


def test_the_fused_kernel_keeps_one_number_a_row(evidence):
    """Besides queries, keys, values and output."""
    total = evidence.names["total"]
    for T in (256, 512, 1024):
        extra = total["SDPA", T] - 4 * 4 * 4 * T * 32
        assert extra / (4 * 4 * T) == pytest.approx(1, abs=0.1)
