"""What the page on space-time attention states."""

import pytest
import torch

from snippets.questions.vision.joint_or_divided import divided, in_time, jointly


@pytest.mark.parametrize(
    "line",
    [
        "     8     224   1,568          1,569      206    7.6      0.06 GB",
        "    96     224  18,816         18,817      294   64.0      8.50 GB",
        "32 frames in tubes of 2: 3,136 tokens, 0.25 of pairs",
        "in_space: 9 of 72 patches change",
        "in_time : 8 of 72 patches change",
        "divided : 72 of 72 patches change",
        "jointly : 72 of 72 patches change",
    ],
)
def test_the_page_prints_what_it_quotes(evidence, line):
    assert line in evidence.output


def test_backwards_is_the_same_without_time_positions(evidence):
    for (_, told), move in evidence.names["moved"].items():
        if told == "time":
            assert move > 0.01
        else:
            assert move < 1e-12


@pytest.mark.parametrize("scheme", [divided, jointly, in_time])
def test_frames_in_another_order_come_out_in_that_order(scheme):
    clip_TPK = torch.randn(5, 4, 8, dtype=torch.float64)
    order_T = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(scheme(clip_TPK[order_T]), scheme(clip_TPK)[order_T])


def test_for_one_frame_joint_is_attention_in_space():
    clip_1PK = torch.randn(1, 4, 8, dtype=torch.float64)
    # A single frame attends to itself with weight 1: in time, x becomes 2x.
    torch.testing.assert_close(divided(clip_1PK), jointly(2 * clip_1PK))
