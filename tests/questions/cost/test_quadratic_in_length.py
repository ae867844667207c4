"""Operations against length."""

import pytest

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.cost.quadratic_in_length")


def test_twice_the_length_is_less_than_four_times(page):
    """At D = 256 from 1024 on."""
    flops = page.names["flops"]
    assert flops[2048] / flops[1024] == pytest.approx(10 / 3)


def test_the_parts_are_those_of_the_formula(page):
    """8TD² and 4T²D."""
    for length, total in page.names["flops"].items():
        assert total == 8 * length * 256**2 + 4 * length**2 * 256


def test_every_output_depends_on_every_input(page):
    """All pairs."""
    assert (page.names["reach_66"] > 0).all()
