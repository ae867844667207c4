import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets.questions.vision.attention_in_vision import (
    match,
    patch_embedding,
    visible,
)


@pytest.mark.parametrize(
    "line",
    [
        "224/16: 196 patches of 768 numbers",
        "196 weights of one position sum to 1.0",
        "object -> prediction [1, 0], cost 0.3",
        "the same cost for all 24 orders",
        " 64^2    16777216        520192    32.3",
        "one round joins all pairs: False - two: True",
        "4 frames of 9 patches, joint: [36] a patch",
        "4 frames of 9 patches, space: [9] a patch",
        "4 frames of 9 patches, time: [4] a patch",
        "     8           1569              206       2460192          323008",
    ],
)
def test_the_page_prints_what_it_quotes(evidence, line):
    assert line in evidence.output


def test_channel_gates_do_not_sum_to_one(evidence):
    line = next(
        x for x in evidence.output.splitlines() if x.startswith("64 channel gates")
    )
    assert 20 < float(line.split()[-1]) < 44


@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
def test_patch_embedding_equals_the_convolution(B, rows, columns, P):
    layer = nn.Conv2d(3, 5, kernel_size=P, stride=P).double()
    image_B3XY = torch.randn(B, 3, rows * P, columns * P, dtype=torch.float64)
    expected = layer(image_B3XY).flatten(2).transpose(1, 2)
    torch.testing.assert_close(patch_embedding(image_B3XY, layer), expected)


def test_match_is_the_cheapest():
    cost_TS = torch.rand(5, 3)
    total, best = match(cost_TS)
    assert len(set(best)) == 3
    assert total == pytest.approx(sum(cost_TS[t, s].item() for s, t in enumerate(best)))
    every = [
        (cost_TS[a, 0] + cost_TS[b, 1] + cost_TS[c, 2]).item()
        for a in range(5)
        for b in range(5)
        for c in range(5)
        if len({a, b, c}) == 3
    ]
    assert total == pytest.approx(min(every))


def test_greedy_choice_is_not_always_cheapest():
    total, best = match(torch.tensor([[0.0, 0.1], [0.2, 1.0]]))
    assert best == [1, 0]
    assert total == pytest.approx(0.3)


def test_too_few_predictions_are_refused():
    with pytest.raises(ValueError, match="2 predictions for 3 objects"):
        match(torch.rand(2, 3))


@given(st.integers(1, 5), st.integers(1, 5))
def test_divided_attention_reaches_all_in_two_steps(frames, places):
    time_TT = visible(frames, places, "time").float()
    space_TT = visible(frames, places, "space").float()
    assert (time_TT.sum(1) == frames).all()
    assert (space_TT.sum(1) == places).all()
    assert ((time_TT @ space_TT > 0) == visible(frames, places, "joint")).all()


def test_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match="scheme is 'both': expected one of"):
        visible(2, 3, "both")
