"""Operations for each byte."""

import pytest


def test_one_token_does_one_operation_a_byte(evidence):
    """And 345 pass the ridge."""
    ratio, ridge = evidence.names["ratio"], evidence.names["ridge"]
    assert ratio[1] == pytest.approx(1, abs=0.01)
    assert ratio[64] < ridge < ratio[512]
    assert evidence.names["enough"] == 345


def test_shared_heads_raise_the_intensity_of_the_cache(evidence):
    """By how many query heads share one."""
    assert evidence.names["step"] == {"MHA": 1, "GQA": 4, "MQA": 32}
