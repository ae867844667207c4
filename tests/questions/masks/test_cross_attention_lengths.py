"""Which length goes where in cross-attention."""

import pytest


def test_rows_are_queries_and_columns_keys(evidence):
    """The output is as long as x, each row of weights as long as y."""
    names = evidence.names
    assert names["weight_BHTS"].shape == (2, 2, 5, 7)
    assert names["out_BTD"].shape == (2, 5, 8)


def test_equal_lengths_hide_the_slip(evidence):
    """Keys viewed with the length of x fail only when lengths differ."""
    answer = evidence.names["answer"]
    assert answer[5] == "equal"
    assert answer[7].startswith("RuntimeError")
    assert answer[10].startswith("RuntimeError")


def test_the_wrong_axis_keeps_the_shape_and_loses_the_sum(evidence):
    """One query over five keys: the row sums to five."""
    assert evidence.names["sums"] == pytest.approx({-1: 1, 0: 5})
