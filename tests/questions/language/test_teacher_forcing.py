"""What the page on teacher forcing states."""

import math

import pytest
import torch

from tests.running import run_main


@pytest.fixture(scope="module")
def run():
    return run_main("snippets.questions.language.teacher_forcing")


def test_random_words_cannot_be_predicted_unless_the_answer_leaks(run):
    loss = run.names["loss"]
    assert loss[True, True] > 0.95 * math.log(10)
    # Without the causal mask only the last word stays unknown: an eighth of ln 10.
    assert loss[True, False] == pytest.approx(math.log(10) / 8, abs=0.1)
    assert loss[False, True] < 0.1


def test_one_pass_equals_step_by_step(run):
    assert "one pass of 8 positions = 8 passes" in run.output


def test_padding_behind_touches_only_the_loss(run):
    assert "real positions unchanged: True" in run.output
    names = run.names
    torch.testing.assert_close(names["kept"], names["alone"])
    assert not torch.isclose(names["all_of_it"], names["alone"])
