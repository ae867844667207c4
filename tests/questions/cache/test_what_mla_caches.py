"""The facts that the page on the cache of MLA states."""

import pytest
import torch


def test_numbers_of_deepseek(evidence):
    """576 numbers are 2.25 key/value heads; the alternatives take 34 and 66."""
    assert list(evidence.names["kept"].values()) == [32768, 576, 8704, 16896]
    for line in (
        "576 numbers =   2.25",
        "8704 numbers =  34.00",
        "16896 numbers =  66",
    ):
        assert line in evidence.output


def test_only_the_rotated_key_keeps_the_distance(evidence):
    """At equal distance, only the rotated key gives equal scores."""
    lines = [
        line.replace(",", "").split()
        for line in evidence.output.splitlines()
        if "absorbed query" in line
    ]
    (zero, near, far) = ([float(w) for w in line if "." in w] for line in lines)
    assert zero[0] == zero[1] == zero[2]
    assert near[0] == far[0]
    assert abs(near[1] - far[1]) > 1
    assert abs(near[2] - far[2]) > 1


def test_no_single_matrix_can_be_absorbed(evidence):
    """The matrix between query and latent differs at every distance."""
    change = evidence.names["change"]
    assert change[0] < 1e-12
    assert change[1] == pytest.approx(0.25, abs=0.01)
    assert change[10] == pytest.approx(1, abs=0.05)
    assert change[100] == pytest.approx(1, abs=0.05)


def test_decoupled_scores_depend_on_the_distance(evidence):
    """Shifting both positions changes nothing; another distance does."""
    score = evidence.names["score"]
    assert torch.isclose(score[5, 2], score[105, 102])
    assert not torch.isclose(score[5, 2], score[5, 3])
