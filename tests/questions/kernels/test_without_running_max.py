"""Softmax without its maximum."""

import torch


def test_exp_overflows_where_the_page_says(evidence):
    """In three types."""
    for line in (
        "float16: exp overflows above 11.1",
        "float32: exp overflows above 88.7",
    ):
        assert line in evidence.output


def test_plain_fails_beyond_the_limit(evidence):
    """The maximum saves it."""
    assert "89.0: plain nan, with maximum 0.665" in evidence.output
    assert "88.0: plain 0.665, with maximum 0.665" in evidence.output


def test_a_running_maximum_is_exact_and_the_first_is_not_enough(evidence):
    """Three tiles."""
    torch.testing.assert_close(
        evidence.names["running_S"].double(), evidence.names["exact_S"]
    )
    assert evidence.names["kept_S"].isinf().any()
