"""What the answer says about attention holds, and its numbers are the ones printed."""

import math
import re

import pytest
import torch

from snippets.questions.basics.what_is_attention import look_up, recall
from tests.running import run_main


def test_weights_come_from_the_input():
    """Another query, other weights; the rows stay distributions."""
    q, k, v = torch.randn(2, 8), torch.randn(5, 8), torch.randn(5, 3)
    weight, out = look_up(q, k, v)
    torch.testing.assert_close(weight.sum(1), torch.ones(2))
    assert weight.min() > 0
    assert (weight[0] - weight[1]).abs().max() > 1e-2
    torch.testing.assert_close(
        out[0], sum(w * x for w, x in zip(weight[0], v, strict=True))
    )


def test_soft_never_drops_an_item():
    """Softmax gives no exact zero at moderate scores: it does not filter."""
    weight, _ = look_up(torch.randn(4, 8), torch.randn(50, 8), torch.randn(50, 2))
    assert weight.min() > 0


def test_sharpness_goes_from_mean_to_look_up():
    """0 is the mean, large is the best key's value."""
    q, k, v = torch.randn(3, 8), torch.randn(6, 8), torch.randn(6, 2)
    torch.testing.assert_close(look_up(q, k, v, 0.0)[1], v.mean(0).expand(3, 2))
    torch.testing.assert_close(look_up(q, k, v, 1e4)[1], v[(q @ k.T).argmax(1)])


@pytest.mark.parametrize(
    ("pairs", "expected"), [(16, 0), (64, 0), (256, 0.866), (1024, 0.968)]
)
def test_a_fixed_state_has_a_capacity(pairs, expected):
    """64 pairs fit a 64 × 64 state; of S more, √(1 − 64 / S) is lost."""
    if expected:
        assert math.sqrt(1 - 64 / pairs) == pytest.approx(expected, abs=1e-3)
    fixed, kept = recall(pairs)
    assert fixed == pytest.approx(expected, abs=0.02)
    assert kept < 1e-3


def test_demonstration():
    """The numbers that the answer quotes."""
    run = run_main("snippets.questions.basics.what_is_attention")
    assert (
        "sharpness  0: weight on item 3 is 0.125 for query 3, 0.125 for" in run.output
    )
    assert (
        "sharpness  4: weight on item 3 is 0.889 for query 3, 0.023 for" in run.output
    )
    assert (
        "sharpness 16: weight on item 3 is 1.000 for query 3, 0.000 for" in run.output
    )
    assert "  64 pairs: error 0.00 from a fixed state, 0.00 by attention" in run.output
    assert " 256 pairs: error 0.87 from a fixed state, 0.00 by attention" in run.output
    assert "1024 pairs: error 0.97 from a fixed state, 0.00 by attention" in run.output
    assert "values doubled, output doubled: True" in run.output
    assert "input doubled, output doubled: False" in run.output
    assert "same output: True" in run.output
    weight, other = run.names["weight_TS"][0], run.names["other_S"]
    torch.testing.assert_close(other.sum(), torch.tensor(1.0))
    assert other.min() >= 0
    assert (weight - other).abs().sum() > 0.1
    top = re.search(r"weights: +\[(.*)\]", run.output)[1].split(", ")
    assert len(top) == 8
