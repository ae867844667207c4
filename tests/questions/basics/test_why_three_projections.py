"""What the answer on the three projections quotes."""


def test_symmetric_scores_cannot_learn_a_direction(evidence):
    """Two projections learn the ring; one stays below a half."""
    right = evidence.names["right"]
    assert right["two projections"] > 0.99
    assert right["Q = K"] < 0.3
    assert "Q = K          : weight on the token before 0.22, after 0.22" in (
        evidence.output
    )


def test_two_projections_are_one_matrix_of_low_rank(evidence):
    """The rank is the head size, and the factors are smaller than the product."""
    assert evidence.names["rank"] == 4
    assert "1024 numbers instead of 256" in evidence.output


def test_shared_keys_and_values_move_the_weights(evidence):
    """Twice the values is twice the output only when keys are separate."""
    change = evidence.names["change"]
    assert change["separate"] < 1e-5
    assert change["K = V"] > 0.1
