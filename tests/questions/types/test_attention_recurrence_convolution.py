"""Path lengths, independent queries, and gradients over a distance."""

import pytest

from snippets.questions.types.attention_recurrence_convolution import layers_needed


def test_quoted_layers(evidence):
    """One, a logarithm, and a line."""
    needed = evidence.names["needed"]
    assert needed["self-attention", 256] == 1
    assert needed["dilated convolution", 256] == 8
    assert needed["convolution", 256] == 255


@pytest.mark.parametrize("length", [2, 3, 5, 9, 33])
def test_convolutions_reach_one_step_a_layer(length):
    """Width 3 reaches one position to each side."""
    assert layers_needed("convolution", length) == length - 1


def test_queries_do_not_wait_for_each_other(evidence):
    """Any order gives the same rows."""
    assert evidence.names["same"]


def test_a_plain_rnn_forgets_faster(evidence):
    """Its gradient vanishes exponentially, that of attention about as 1/T."""
    (near, near_a), (far, far_a) = (
        evidence.names["reaction"][2],
        evidence.names["reaction"][32],
    )
    assert near == pytest.approx(1.3, abs=0.1)
    assert far < 1e-9
    assert 10 < near_a / far_a < 40
