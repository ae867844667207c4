"""What the page on connectors states."""

import pytest


def test_cache_of_an_image(evidence):
    assert evidence.names["mebibytes"] == {
        224: [128, 16],
        336: [288, 16],
        672: [1152, 16],
    }


def test_parameters_of_the_projectors(evidence):
    assert evidence.names["linear"] == 1024 * 4096 + 4096
    assert evidence.names["mlp"] == pytest.approx(21e6, rel=0.01)


def test_a_token_for_each_patch_keeps_everything(evidence):
    assert evidence.names["right"]["projector, 16 tokens"] > 0.98


def test_few_latents_lose_what_nobody_asked_for_yet(evidence):
    right = evidence.names["right"]
    # N patches of 16 are kept, the others guessed among 8 colors.
    assert right["1 latents"] == pytest.approx(1 / 16 + 15 / 16 / 8, abs=0.12)
    assert right["4 latents"] == pytest.approx(4 / 16 + 12 / 16 / 8, abs=0.12)
    assert right["1 latents"] < right["4 latents"] < right["16 latents"]


def test_one_latent_is_enough_when_it_knows_the_question(evidence):
    assert evidence.names["right"]["1 latent, told"] > 0.98


def test_latents_mix_all_patches(evidence):
    assert evidence.names["moved"] == {"projector": 1, "latents": 4}
