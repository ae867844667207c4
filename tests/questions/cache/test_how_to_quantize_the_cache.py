"""The facts that the page on quantizing the cache states."""

import pytest


def test_large_channels_want_a_step_a_channel(evidence):
    """Per channel the error stays near 19%; per token it grows with the shift."""
    error = evidence.names["k_error"]
    assert [error[s, "channel"] for s in (0, 3, 10, 30)] == pytest.approx(
        [0.19] * 4, abs=0.02
    )
    per_token = [error[s, "token"] for s in (0, 3, 10, 30)]
    assert per_token == sorted(per_token)
    assert per_token[0] < error[0, "channel"]
    assert per_token[1] < 1.3 * error[3, "channel"]
    assert per_token[2] > 2 * error[10, "channel"]


def test_values_want_a_step_a_token(evidence):
    """Per token the error stays near 9%; per channel it grows with the spread."""
    error = evidence.names["v_error"]
    assert [error[s, "token"] for s in (0.0, 0.5, 1.0)] == pytest.approx(
        [0.09] * 3, abs=0.01
    )
    assert error[0.0, "channel"] < 1.5 * error[0.0, "token"]
    assert error[1.0, "channel"] > 3 * error[1.0, "token"]


def test_keys_hurt_more_where_scores_are_large(evidence):
    """Half the harm of values with small queries, twice as much with large ones."""
    ratio = {
        size: keys / values for size, (keys, values) in evidence.names["harm"].items()
    }
    assert ratio[0.5] == pytest.approx(0.5, abs=0.1)
    assert ratio[4] == pytest.approx(2, abs=0.2)


def test_steps_take_room(evidence):
    """At 2 bits in groups of 32 the cache is 5.3 times smaller, not 8."""
    assert "2 bits: 3 a number, 5.3 times smaller than 16" in evidence.output
