"""The output projection."""

import pytest
import torch

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.heads.output_projection")


def test_concatenating_equals_a_sum_over_heads(page):
    """Folded matrices give the same output."""
    torch.testing.assert_close(page.names["summed_TD"], page.names["joined_TD"])


def test_folding_needs_four_times_as_many_numbers(page):
    """And each matrix has the rank of a head."""
    assert "8,192, folded 32,768" in page.output
    assert "rank of a folded matrix: 8" in page.output


def test_without_it_heads_do_not_mix(page):
    """Head 0 reaches its own components only."""
    assert page.names["touched"] == {"without W_O": 8, "with W_O": 64}
