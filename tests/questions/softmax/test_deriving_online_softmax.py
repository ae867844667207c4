"""The facts that the page on deriving online softmax states."""

import re

import pytest
import torch

from snippets.questions.softmax.deriving_online_softmax import attend_online


def test_by_hand(evidence):
    """The factor is exp(-2) where the maximum rises by 2, 1 where it does not."""
    repairs = re.findall(r"repair (\S+),", evidence.output)
    assert repairs == ["0.0000", "0.1353", "1.0000", "0.1353"]
    assert evidence.output.count("sum 1.2034") == 2


@pytest.mark.parametrize("order", ["drawn", "rising", "falling"])
def test_one_pass_equals_softmax(order):
    """Whatever the order, also for scores that overflow an exponential."""
    torch.manual_seed(1)
    score_S, v_SV = 300 * torch.randn(50).double(), torch.randn(50, 3).double()
    if order != "drawn":
        score_S = score_S.sort(descending=order == "falling").values
    torch.testing.assert_close(
        attend_online(score_S, v_SV), torch.softmax(score_S, 0) @ v_SV
    )


def test_without_the_factor_only_falling_scores_are_right(evidence):
    """Three of the four orders are off by much more than rounding."""
    bad = re.findall(r"without the repair (\S+)", evidence.output)
    assert [float(x) > 0.01 for x in bad] == [True, True, False, True]


def test_without_the_factor_it_is_right_where_the_largest_comes_first():
    """The others may stand in any order."""
    torch.manual_seed(1)
    score_S, v_SV = 10 * torch.randn(50).double(), torch.randn(50, 3).double()
    score_S[0] = score_S.max() + 1
    torch.testing.assert_close(
        attend_online(score_S, v_SV, rescale=False), torch.softmax(score_S, 0) @ v_SV
    )


def test_the_maximum_rises_seldom(evidence):
    """About 8.8 times in 10,000."""
    assert float(
        re.search(r"10000 .* rises (\S+)", evidence.output)[1]
    ) == pytest.approx(8.8, abs=0.4)
