"""The facts that the page on converting MHA to GQA states."""

import pytest


def test_only_keys_and_values_are_pooled(evidence):
    """One checkpoint goes in; W_K and W_V lose heads, W_Q and W_O stay."""
    shapes = {
        name: tuple(w_any.shape) for name, w_any in evidence.names["pooled"].items()
    }
    assert shapes == {
        "q": (8, 16, 128),
        "k": (2, 16, 128),
        "v": (2, 16, 128),
        "o": (8, 16, 128),
    }


def test_pooled_weights_give_pooled_keys(evidence):
    """A projection is linear: the mean of the weights gives the mean of the keys."""
    gap_BGTK = evidence.names["mean_BGTK"] - evidence.names["key_BGTK"]
    assert gap_BGTK.abs().max() < 1e-5


def test_mean_beats_first_beats_random(evidence):
    """Equal heads lose nothing; different ones lose, the mean least."""
    error = evidence.names["error"]
    assert error[0.0, "mean"] < 1e-5
    for spread in (0.3, 1.0, 3.0):
        mean, first, random = (error[spread, n] for n in ("mean", "first", "random"))
        assert 0.2 < mean < first < random
    assert error[3.0, "mean"] == pytest.approx(0.92, abs=0.02)


def test_averaging_two_models_breaks_them(evidence):
    """The same function with reordered heads: the average of both is far off."""
    assert evidence.names["same"] < 1e-5
    assert evidence.names["broken"] == pytest.approx(0.84, abs=0.02)
