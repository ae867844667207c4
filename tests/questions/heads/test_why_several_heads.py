"""Several heads, several averages."""

import pytest

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.heads.why_several_heads")


def test_two_heads_fetch_two_places_and_one_a_blend(page):
    """Each of two heads sees one key."""
    assert "1 heads: output ['0.50', '0.00', '0.50', '0.00']" in page.output
    assert "2 heads: output ['1.00', '0.00', '1.00', '0.00']" in page.output


def test_splitting_changes_the_function(page):
    """The last line printed is that of 8 heads."""
    assert page.names["change"] > 0.5
    assert "2 heads: 66% away" in page.output
