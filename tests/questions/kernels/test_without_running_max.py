"""Softmax without its maximum."""

import pytest
import torch

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.kernels.without_running_max")


def test_exp_overflows_where_the_page_says(page):
    """In three types."""
    for line in (
        "float16: exp overflows above 11.1",
        "float32: exp overflows above 88.7",
    ):
        assert line in page.output


def test_plain_fails_beyond_the_limit(page):
    """The maximum saves it."""
    assert "89.0: plain nan, with maximum 0.665" in page.output
    assert "88.0: plain 0.665, with maximum 0.665" in page.output


def test_a_running_maximum_is_exact_and_the_first_is_not_enough(page):
    """Three tiles."""
    torch.testing.assert_close(page.names["running_S"].double(), page.names["exact_S"])
    assert page.names["kept_S"].isinf().any()
