"""What the page on CLIP states."""

import torch

from snippets.questions.multimodal.clip_without_cross_attention import contrast


def test_towers_learn_to_match_pairs_they_never_saw(evidence):
    assert evidence.names["before"] < 0.05
    assert evidence.names["after"] > 0.8


def test_cost_is_a_sum_not_a_product(evidence):
    assert "512 encodings; a joint encoder runs 65536 times" in evidence.output


def test_a_batch_of_one_teaches_nothing(evidence):
    assert "batches of   1: gradient 0.000" in evidence.output
    assert contrast(torch.randn(1, 4), torch.randn(1, 4)) == 0


def test_small_batches_do_not_add_up_to_a_large_one(evidence):
    slopes = evidence.names["slopes"]
    same = torch.cosine_similarity(slopes[128], slopes[2], dim=0).item()
    assert 0.3 < same < 0.7


def test_matching_pairs_lower_the_loss():
    x_BD = torch.eye(6)
    assert contrast(x_BD, x_BD) < contrast(x_BD, x_BD.roll(1, 0))


def test_only_attention_inside_the_tower_tells_who_is_red(evidence):
    lines = [
        line for line in evidence.output.splitlines() if "sentences differ" in line
    ]
    gaps = [float(line.rsplit(" ", 1)[1]) for line in lines]
    assert gaps[0] < 1e-12
    assert gaps[1] > 0.01
