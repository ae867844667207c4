"""What tells a draw, top-k, a threshold and argmax apart."""

import pytest


@pytest.mark.parametrize(
    ("name", "total", "out", "reached"),
    [
        ("soft", 1.0, 6.2, 5),
        ("top-k, k = 2", 1.0, 2.38, 2),
        ("threshold 0.25", 2.0, 5.0, 0),
        ("threshold 0.4", 0.0, 0.0, 0),
        ("argmax", 1.0, 1.0, 0),
    ],
)
def test_each_kind(evidence, name, total, out, reached):
    """Sum of the weights, output, and how many scores have a gradient."""
    assert evidence.names["report"][name][:2] == pytest.approx((total, out), abs=0.01)
    assert evidence.names["report"][name][2] == reached


def test_the_mean_of_draws_is_soft(evidence):
    """A draw agrees with soft attention on average, and is seldom the argmax."""
    assert (
        abs(evidence.names["mean"] - evidence.names["expected"])
        <= 5 * evidence.names["error"]
    )
    assert evidence.names["seldom"] == pytest.approx(0.65, abs=0.01)
