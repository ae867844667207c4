"""What the answer on the three projections quotes."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def demonstration():
    """Run the evidence."""
    return run_main("snippets.questions.basics.why_three_projections")


def test_symmetric_scores_cannot_learn_a_direction(demonstration):
    """Two projections learn the ring; one stays below a half."""
    right = demonstration.names["right"]
    assert right["two projections"] > 0.99
    assert right["Q = K"] < 0.3
    assert "Q = K          : weight on the token before 0.22, after 0.22" in (
        demonstration.output
    )


def test_two_projections_are_one_matrix_of_low_rank(demonstration):
    """The rank is the head size, and the factors are smaller than the product."""
    assert demonstration.names["rank"] == 4
    assert "1024 numbers instead of 256" in demonstration.output


def test_shared_keys_and_values_move_the_weights(demonstration):
    """Twice the values is twice the output only when keys are separate."""
    change = demonstration.names["change"]
    assert change["separate"] < 1e-5
    assert change["K = V"] > 0.1
