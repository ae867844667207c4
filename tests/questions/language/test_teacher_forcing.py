"""What the page on teacher forcing states."""

import math

import pytest
import torch


def test_random_words_cannot_be_predicted_unless_the_answer_leaks(evidence):
    loss = evidence.names["loss"]
    assert loss[True, True] > 0.95 * math.log(10)
    # Without the causal mask only the last word stays unknown: an eighth of ln 10.
    assert loss[True, False] == pytest.approx(math.log(10) / 8, abs=0.1)
    assert loss[False, True] < 0.1


def test_one_pass_equals_step_by_step(evidence):
    assert "one pass of 8 positions = 8 passes" in evidence.output


def test_padding_behind_touches_only_the_loss(evidence):
    assert "real positions unchanged: True" in evidence.output
    names = evidence.names
    torch.testing.assert_close(names["kept"], names["alone"])
    assert not torch.isclose(names["all_of_it"], names["alone"])
