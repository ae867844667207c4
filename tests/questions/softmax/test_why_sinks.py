"""The facts that the page on sinks states."""

import re

import pytest


def test_softmax_cannot_abstain(evidence):
    """The output has length 3.04 however low the scores."""
    assert re.findall(r"length of the output (\S+)", evidence.output) == ["3.04"] * 3


def test_three_ways_lead_to_nothing(evidence):
    """Plain softmax outputs about 2.9, the others about 0.002."""
    lengths = list(evidence.names["length"].values())
    assert lengths == pytest.approx([2.9, 0.002, 0.002, 0.002], rel=0.1)


def test_evicting_the_sink_magnifies_the_rest(evidence):
    """With 96 % of the weight gone, outputs are about 23 times as long."""
    names = evidence.names
    assert names["sink_share"] == pytest.approx(0.96, abs=0.005)
    assert names["ratio"] == pytest.approx(1 / (1 - names["sink_share"]), rel=0.01)
    assert names["ratio"] == pytest.approx(23, rel=0.05)


def test_only_the_first_is_visible_to_all(evidence):
    """8 queries see key 0, 1 sees the last."""
    assert "[8, 7, 6, 5, 4, 3, 2, 1]" in evidence.output
