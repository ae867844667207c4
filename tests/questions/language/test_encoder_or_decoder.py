"""What the page on the three architectures states."""

import math

import pytest
import torch

from snippets.questions.language.encoder_or_decoder import patterns


def test_a_causal_mask_cannot_use_the_word_on_the_right(evidence):
    loss = evidence.names["loss"]
    assert loss["decoder-only", "tag"] > 0.95 * math.log(8)
    assert loss["encoder-only", "tag"] < 0.1


@pytest.mark.parametrize("name", ["decoder-only", "encoder–decoder"])
def test_both_translate(evidence, name):
    assert evidence.names["loss"][name, "reverse"] < 0.1


def test_the_source_sees_itself_only_with_an_encoder():
    masks = patterns(6, 5)
    more_PP = masks["encoder–decoder"] & ~masks["decoder-only"]
    assert more_PP.sum() == 15
    assert more_PP[:6, :6].sum() == 15
    assert masks["decoder-only"].sum() == 66
    assert masks["encoder-only"].sum() == 121


def test_depth_does_not_widen_the_view(evidence):
    for line in (
        "decoder-only    after 24 layers: word 0 knows 1, word 5 6",
        "encoder–decoder after 24 layers: word 0 knows 6, word 5 6",
        "encoder-only    after 24 layers: word 0 knows 12, word 5 12",
    ):
        assert line in evidence.output


def test_a_new_word_spoils_every_output_of_an_encoder(evidence):
    assert evidence.names["kept"] == {"encoder-only": 0, "decoder-only": 11}
    assert "128 positions with a cache, 8,256 without" in evidence.output


def test_under_a_causal_mask_the_future_inputs_do_not_matter(evidence):
    change = evidence.names["change"]
    assert change["decoder-only"] == 0
    assert change["encoder-only"] > 0.01
    assert "77 masked, 511 causal" in evidence.output


def test_the_target_sees_the_whole_source():
    for mask_PP in patterns(6, 5).values():
        assert torch.all(mask_PP[6:, :6])
