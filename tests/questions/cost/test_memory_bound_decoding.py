"""Operations for each byte."""

import pytest

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.cost.memory_bound_decoding")


def test_one_token_does_one_operation_a_byte(page):
    """And 512 pass the ridge."""
    ratio, ridge = page.names["ratio"], page.names["ridge"]
    assert ratio[1] == pytest.approx(1, abs=0.01)
    assert ratio[64] < ridge < ratio[512]


def test_shared_heads_raise_the_intensity_of_the_cache(page):
    """By how many query heads share one."""
    assert page.names["step"] == {"MHA": 1, "GQA": 4, "MQA": 32}
