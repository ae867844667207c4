"""Which corner the causal triangle stands in."""

import pytest

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.masks.is_causal_alignment")


def test_one_query_sees_one_key(page):
    """With is_causal a step of decoding returns the first value."""
    assert "one key of 6 was seen" in page.output


def test_a_chunk_needs_the_lower_right_corner(page):
    """Only there it equals the full pass."""
    assert "top left: keys per query [1, 2, 3]" in page.output
    assert "bottom right: keys per query [4, 5, 6], error 0" in page.output
