"""The facts of the page on where positions enter."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def demonstration():
    """Run the evidence."""
    return run_main("snippets.questions.positions.where_positions_enter")


def test_counts(demonstration):
    """Once at the input, twice a layer, once a layer."""
    for line in ("added to the input: 1 times", "RoPE: 12 times", "ALiBi: 6 times"):
        assert line in demonstration.output


def test_only_absolute_positions_feel_a_shift(demonstration):
    """RoPE and ALiBi do not change when all positions move by 100."""
    moved = demonstration.names["moved"]
    assert moved["added to the input"] > 0.01
    assert max(moved["RoPE"], moved["ALiBi"]) < 1e-5
