"""The facts that the page on why softmax states."""

import re

import pytest


def test_only_softmax_has_all_four(evidence):
    """Each rival lacks something, and softmax nothing."""
    sound = evidence.names["sound"]
    assert all(sound["by_softmax"].values())
    assert not sound["by_sum"]["probabilities"]
    assert not sound["by_square"]["keeps the order"]
    assert not sound["by_relu"]["fit for low scores"]


def test_squares_prefer_the_lowest_score(evidence):
    """-3 weighs more than 2.5."""
    p_3 = evidence.names["by_square"](evidence.names["x_3"])
    assert p_3[0] > p_3[2]


def test_softmax_attains_log_sum_exp(evidence):
    """About 2.06, and no random distribution reaches it."""
    assert evidence.names["value"] == pytest.approx(2.06, abs=0.01)
    assert evidence.names["value_N"].max() < evidence.names["value"]


def test_sigmoids_need_a_bias(evidence):
    """515 without, between 1 and 2 with it."""
    rows = re.findall(r"^ *(\d+) +([\d.]+) +([\d.]+)$", evidence.output, re.M)
    assert float({r[0]: r[1] for r in rows}["1024"]) == pytest.approx(515, abs=5)
    assert all(1 < float(row[2]) < 2 for row in rows)
