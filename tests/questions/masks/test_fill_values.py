"""What a fill value hides and what it does not."""

import re

import pytest


def test_a_tiny_number_hides_nothing(evidence):
    """-1e-9 changes no weight by more than rounding."""
    leak, change = re.search(
        r"-1e-09: .* weight ([\d.]+), change (\S+)", evidence.output
    ).groups()
    assert float(leak) > 0.1
    assert float(change) < 1e-6


def test_minus_ten_still_leaks(evidence):
    """Not every large number is large enough."""
    leak = re.search(r" -10: largest hidden weight (\S+),", evidence.output)[1]
    assert 1e-6 < float(leak) < 1e-3


def test_a_finite_number_added_loses_against_a_large_score(evidence):
    """Added to the score it can be outweighed; filled in, or as -inf, it cannot."""
    assert "-1000 added: weight of the padding 1.00" in evidence.output
    assert "-inf added: weight of the padding 0.00" in evidence.output
    assert "-1000 filled in: weight of the padding 0.00" in evidence.output


def test_a_hidden_nan_needs_replacing(evidence):
    """Added to it, minus infinity is still NaN."""
    assert evidence.names["added_S"].isnan().all()
    assert evidence.names["filled_S"][:3].tolist() == pytest.approx([1 / 3] * 3)


def test_half_precision_has_no_such_number(evidence):
    """-1e9 is -inf in float16; two masks of finfo.min add up to it."""
    assert "torch.float16: smallest -65504; -1e9 became -inf" in evidence.output
    assert (
        "two masks of finfo.min added in float16: [-inf, -inf, -inf, -inf]"
        in evidence.output
    )


def test_masked_fill_refuses_a_value_that_does_not_fit(evidence):
    assert re.search(r"masked_fill in float16: .*overflow", evidence.output)
