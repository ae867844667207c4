"""Ring attention."""

import pytest

from snippets.questions.training.ring_attention import split


def test_however_positions_are_dealt_the_result_is_that_of_one_device(evidence):
    """In float64, with a causal mask."""
    assert set(evidence.names["gap"]) == {"contiguous", "striped", "zigzag"}
    assert max(evidence.names["gap"].values()) < 1e-12


@pytest.mark.parametrize("how", ["contiguous", "striped", "zigzag"])
def test_every_position_is_dealt_once(how):
    """To devices of equal size."""
    own_NC = split(how, 4, 6)
    assert own_NC.shape == (4, 6)
    assert sorted(own_NC.flatten().tolist()) == list(range(24))


def test_contiguous_parts_make_the_others_wait(evidence):
    """Almost twice an even share with 16 devices; striped and zigzag hardly wait."""
    wait = evidence.names["wait"]
    for N, much in ((2, 1.49), (4, 1.74), (8, 1.87), (16, 1.94)):
        assert wait["contiguous", N] == pytest.approx(much, abs=0.006)
        assert wait["striped", N] == pytest.approx(1.02, abs=0.016)
        assert wait["zigzag", N] == 1
