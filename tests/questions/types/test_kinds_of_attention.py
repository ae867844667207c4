"""The facts that the page on kinds of attention states."""

import math

import pytest


def test_hard_is_one_hot_and_its_mean_is_soft(evidence):
    """Each draw picks one key; over 100,000 draws the mean is the soft output."""
    names = evidence.names
    choice_BS, hard_BV, soft_V = names["choice_BS"], names["hard_BV"], names["soft_V"]
    assert soft_V.tolist() == pytest.approx([8.0, 6.0])
    assert ((choice_BS == 0) | (choice_BS == 1)).all()
    assert (choice_BS.sum(-1) == 1).all()
    error_V = hard_BV.std(0) / math.sqrt(len(hard_BV))
    assert ((hard_BV.mean(0) - soft_V).abs() <= 5 * error_V).all()
    weight_S = names["weight_S"]
    error_S = (weight_S * (1 - weight_S) / len(choice_BS)).sqrt()
    assert ((choice_BS.mean(0) - weight_S).abs() <= 5 * error_S).all()


def test_threshold_is_neither(evidence):
    """No threshold gives the soft output, and one of them gives nothing at all."""
    for line in (
        "threshold 0.25: [1.0, 1.0, 0.0, 0.0] -> [10.0, 10.0]",
        "threshold 0.15: [1.0, 1.0, 1.0, 0.0] -> [30.0, 10.0]",
        "threshold 0.5: [0.0, 0.0, 0.0, 0.0] -> [0.0, 0.0]",
    ):
        assert line in evidence.output


def test_the_axes_are_independent(evidence):
    """All four combinations of source and use exist."""
    for source, keys in (("self ", 3), ("cross", 4)):
        for use in ("soft", "hard"):
            line = f"{source} {use}: {keys} keys, output (3, 8)"
            assert line in evidence.output


def test_gates_do_not_sum_to_one_attention_does(evidence):
    """Sums of gates are far from one; every row of attention sums to one."""
    names = evidence.names
    for gate in (names["channel_1C"], names["place_11XY"]):
        assert ((gate > 0) & (gate < 1)).all()
        assert gate.sum().item() > 2
    assert evidence.output.count("36 rows, sums 1.0000–1.0000") == 2
