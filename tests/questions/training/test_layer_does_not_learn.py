"""Registered parameters."""

import pytest

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.training.layer_does_not_learn")


def test_a_list_registers_nothing(page):
    """2 of 6."""
    assert sorted(page.names["counts"].values()) == [2, 6]


def test_the_optimizer_skips_them_though_they_have_gradients(page):
    """Not moved at all."""
    moved = page.names["moved"]
    assert moved[list] == 0
    assert max(moved.values()) > 1
