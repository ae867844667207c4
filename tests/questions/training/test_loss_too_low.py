"""Leaks of the future."""

import math

import pytest

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.training.loss_too_low")


def test_the_property_finds_each_leak(page):
    """And lets the right model pass."""
    found = page.names["found"]
    assert found.pop("right") == []
    assert found.pop("triangle one too wide") == [3]
    assert list(found.values()) == [[0, 1, 2, 3]] * 3


def test_a_leak_beats_what_is_possible(page):
    """Random tokens cannot be guessed."""
    loss = page.names["loss"]
    assert loss["sees one ahead"] < 0.1
    assert loss["sees the past"] == pytest.approx(math.log(20), abs=0.1)
