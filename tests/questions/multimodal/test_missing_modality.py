"""What the page on missing modalities states."""

import pytest
import torch


def test_zeros_take_weight_and_shrink_the_output(evidence):
    names = evidence.names
    assert 0.55 < names["lost"] < 0.65
    share = (names["zeros_11TK"].norm() / names["alone_11TK"].norm()).item()
    assert share == pytest.approx(0.44, abs=0.01)


def test_a_mask_equals_text_alone(evidence):
    names = evidence.names
    torch.testing.assert_close(names["masked_11TK"], names["alone_11TK"])


def test_one_missing_image_poisons_the_gradients_of_the_whole_batch(evidence):
    assert evidence.names["bad"] == {
        "-inf": [36, 256, 256],
        "-inf, then where": [0, 256, 0],
        "masked_softmax": [0, 0, 0],
    }
