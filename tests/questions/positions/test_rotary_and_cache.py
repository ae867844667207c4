"""The facts of the page on RoPE and a KV cache."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def gaps():
    """Run the evidence."""
    return run_main("snippets.questions.positions.rotary_and_cache").names["gaps"]


def test_a_window_may_keep_rotated_keys(gaps):
    """Dropping old keys equals masking them."""
    assert gaps["window, rotated keys"] < 1e-10


def test_renumbering_breaks_rotated_keys(gaps):
    """Keys rotated for old positions do not fit new numbers."""
    assert gaps["renumbered, rotated keys"] > 0.1


def test_rotating_by_the_difference_repairs_them(gaps):
    """Rotations add up."""
    assert gaps["renumbered, rotated by the difference"] < 1e-10
