"""Cost and the number of heads."""

import pytest

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.heads.heads_and_cost")


def test_parameters_and_flops_do_not_depend_on_heads(page):
    """One pair of numbers for all."""
    assert page.names["counted"] == {(1_048_576, 142_606_336)}


def test_scores_do(page):
    """H times as many."""
    assert page.names["scores"] == {1: 65_536, 8: 524_288, 64: 4_194_304}


def test_heads_of_full_size_cost_as_many_times(page):
    """Eight of them, eight times."""
    assert page.names["grown"][8] == 8 * page.names["grown"][1]
