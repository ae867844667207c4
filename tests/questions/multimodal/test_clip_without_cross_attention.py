"""What the page on CLIP states."""

import pytest
import torch

from snippets.questions.multimodal.clip_without_cross_attention import contrast
from tests.running import run_main


@pytest.fixture(scope="module")
def run():
    return run_main("snippets.questions.multimodal.clip_without_cross_attention")


def test_towers_learn_to_match_pairs_they_never_saw(run):
    assert run.names["before"] < 0.05
    assert run.names["after"] > 0.8


def test_cost_is_a_sum_not_a_product(run):
    assert "512 encodings; a joint encoder runs 65536 times" in run.output


def test_a_batch_of_one_teaches_nothing(run):
    assert "batch of   1: gradient 0.000" in run.output
    assert contrast(torch.randn(1, 4), torch.randn(1, 4)) == 0


def test_matching_pairs_lower_the_loss():
    x_BD = torch.eye(6)
    assert contrast(x_BD, x_BD) < contrast(x_BD, x_BD.roll(1, 0))


def test_only_attention_inside_the_tower_tells_who_is_red(run):
    lines = [line for line in run.output.splitlines() if "sentences differ" in line]
    gaps = [float(line.rsplit(" ", 1)[1]) for line in lines]
    assert gaps[0] < 1e-12
    assert gaps[1] > 0.01
