"""Operations against length."""

import pytest


def test_twice_the_length_is_less_than_four_times(evidence):
    """At D = 256 from 1024 on."""
    flops = evidence.names["flops"]
    assert flops[2048] / flops[1024] == pytest.approx(10 / 3)


def test_the_parts_are_those_of_the_formula(evidence):
    """8TD² and 4T²D."""
    for length, total in evidence.names["flops"].items():
        assert total == 8 * length * 256**2 + 4 * length**2 * 256


def test_every_output_depends_on_every_input(evidence):
    """All pairs."""
    assert (evidence.names["reach_66"] > 0).all()
