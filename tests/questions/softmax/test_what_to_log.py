"""The facts that the page on logging states."""

import math
import re

import pytest
import torch

from snippets.questions.softmax.what_to_log import watch


def test_entropy_falls_and_saturation_rises(evidence):
    """Entropies of about 1, 0.86, 0.27, 0.01; up to about 86 % saturated."""
    seen = evidence.names["seen"]
    assert seen["entropy_H"].tolist() == pytest.approx([1, 0.86, 0.27, 0.01], abs=0.02)
    assert seen["saturated_H"][0] == 0
    assert seen["saturated_H"][-1].item() == pytest.approx(0.86, abs=0.03)


def test_entropy_is_that_of_the_definition():
    """Two visible keys with odds of 3 to 1, and hidden ones do not count."""
    score_1TS = torch.tensor([[[math.log(3.0), 0.0, 100.0], [0.0, 0.0, 0.0]]])
    mask_TS = torch.tensor([[True, True, False], [True, True, True]])
    seen = watch(score_1TS, mask_TS)
    two = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)
    assert seen["entropy_H"].item() == pytest.approx((two + 1) / 2)
    assert seen["largest_H"].item() == pytest.approx(math.log(3))


def test_low_entropy_may_be_the_job(evidence):
    """A head that copies the previous token has almost none."""
    assert evidence.names["copying"]["entropy_H"].item() < 0.01


def test_bfloat16_steps(evidence):
    """0.5 near 100, which is 28 % of a weight."""
    assert evidence.names["gap"][100.0] == 0.5
    assert "near  100: step 0.5000, weight × 1.284" in evidence.output


def test_widening_comes_too_late(evidence):
    """The error grows with the scores, up to about 16 %."""
    off = [float(x) for x in re.findall(r"up to (\S+)% off", evidence.output)]
    assert off == sorted(off)
    assert off[-1] == pytest.approx(16, abs=2)
