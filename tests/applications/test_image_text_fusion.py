"""The seed's faults one by one; data, task and split; what the attention does."""

import re
from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snippets.applications import image_text_fusion_seed as seed
from snippets.applications.digits import read_digits
from snippets.applications.image_text_fusion import (
    QUESTIONS,
    CrossFusion,
    FlatFusion,
    MeanFusion,
    Reader,
    draw,
    encode,
    mosaic,
    patches,
    right,
    train,
)
from tests.running import run_main

CORNERS = [(slice(0, 28), slice(0, 28)), (slice(0, 28), slice(28, 56))]
CORNERS += [(slice(28, 56), slice(0, 28)), (slice(28, 56), slice(28, 56))]


@pytest.fixture(scope="module")
def digits():
    return read_digits()


@pytest.fixture(scope="module")
def trained(digits, request):
    """A cross-attention and a mean reader, trained for 400 steps each."""
    torch.set_default_device(request.config.getoption("--device"))
    digit_NXY, label_N = (x.to(torch.get_default_device()) for x in digits)
    readers = {}
    for make in (CrossFusion, MeanFusion):
        torch.manual_seed(0)
        reader = Reader(make())
        losses = train(reader, digit_NXY[:4000], label_N[:4000], steps=400)
        readers[make] = reader, losses
    generator = torch.Generator(device=label_N.device).manual_seed(1)
    held_out = draw(digit_NXY[4000:], label_N[4000:], 1000, generator)
    torch.set_default_device(None)
    return readers, held_out


def test_no_digit_is_in_both_parts():
    """No image of the 4,000 to learn from is among the 1,000 to test on."""
    digit_NXY, _ = read_digits()
    learn = {digit.cpu().numpy().tobytes() for digit in digit_NXY[:4000]}
    held_out = {digit.cpu().numpy().tobytes() for digit in digit_NXY[4000:]}
    print(f"{len(learn)} + {len(held_out)} images, {len(learn & held_out)} in both")
    assert len(learn) + len(held_out) == 5000
    assert not learn & held_out


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (
            seed.MultiModalAttention,
            RuntimeError,
            "same number of dimensions: got 3 and 2",
        ),
        (seed.TwoAxes, IndexError, "range of [-2, 1], but got 2"),
        (seed.LastAxis, NameError, "name 'F' is not defined"),
    ],
)
def test_each_fault_of_the_seed_raises_what_the_page_shows(model, error, message):
    assert not hasattr(seed, "F")
    with pytest.raises(error, match=re.escape(message)):
        model(6, 5, 4)(torch.randn(8, 6), torch.randn(8, 5))


def test_the_seed_repaired_attends_to_nothing():
    out = run_main("snippets.applications.image_text_fusion_seed").output
    assert "announced (8, 4), returned (8, 1)" in out
    assert "weights: [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]" in out
    assert "attended is the image vector: True" in out
    assert "gradient of attn: 0.0" in out
    assert "gradient of v:    0.0" in out
    silent = int(re.search(r"return 0 for all 8 pairs: (\d+)", out)[1])
    assert 200 < silent < 400


def test_digits_are_complete(digits):
    digit_NXY, label_N = digits
    assert digit_NXY.shape == (5000, 28, 28)
    assert digit_NXY.min() == 0
    assert digit_NXY.max() == 1
    assert label_N.bincount().tolist() == [500] * 10
    assert label_N[4000:].bincount(minlength=10).min() > 50


def test_mosaic_lays_digits_out_in_order():
    digit_B4XY = torch.rand(3, 4, 28, 28)
    whole = mosaic(digit_B4XY)
    for place, (rows, columns) in enumerate(CORNERS):
        assert whole[:, rows, columns].equal(digit_B4XY[:, place])


def test_patches_are_squares_row_by_row():
    whole = torch.rand(2, 56, 56)
    cut = patches(whole)
    assert cut.shape == (2, 16, 196)
    for s in range(16):
        y, x = 14 * (s // 4), 14 * (s % 4)
        assert cut[:, s].equal(whole[:, y : y + 14, x : x + 14].flatten(1))


def test_questions_name_the_corners_in_both_languages():
    expected = ["top left", "top right", "bottom left", "bottom right"]
    assert QUESTIONS[:4] == [f"which digit is {corner}" for corner in expected]
    assert QUESTIONS[4:] == ["左 上 是 几", "右 上 是 几", "左 下 是 几", "右 下 是 几"]
    assert encode(QUESTIONS).shape == (8, 5)
    assert len({tuple(row) for row in encode(QUESTIONS).tolist()}) == 8
    assert (encode(QUESTIONS) == 0).sum(1).tolist() == [0] * 4 + [1] * 4


@given(st.integers(0, 9999))
def test_the_answer_is_the_digit_in_the_asked_corner(number):
    digit_NXY = torch.rand(7, 28, 28)
    label_N = torch.tensor([3, 1, 4, 1, 5, 9, 2])
    generator = torch.Generator().manual_seed(number)
    whole, ask_B, word_BT, answer_B = draw(digit_NXY, label_N, 5, generator)
    for b, ask in enumerate(ask_B.tolist()):
        corner = whole[b][CORNERS[ask % 4]]
        which = [n for n in range(7) if digit_NXY[n].equal(corner)]
        assert answer_B[b] == label_N[which[0]]
        assert word_BT[b].equal(encode(QUESTIONS)[ask])


def test_same_budget():
    sizes = [
        sum(p.numel() for p in Reader(make()).parameters())
        for make in (CrossFusion, MeanFusion, FlatFusion)
    ]
    assert max(sizes) < 1.01 * min(sizes)


@pytest.mark.parametrize("make", [CrossFusion, MeanFusion, FlatFusion])
def test_scores_have_one_row_a_pair_and_pairs_do_not_mix(make):
    reader = Reader(make()).eval()
    if make is CrossFusion:
        reader.fusion.cross.gate.data.fill_(0.7)
    whole, word_BT = torch.rand(4, 56, 56), encode(QUESTIONS)[[0, 5, 3, 6]]
    scores = reader(whole, word_BT)
    assert scores.shape == (4, 10)
    alone = torch.cat([reader(whole[b : b + 1], word_BT[b : b + 1]) for b in range(4)])
    torch.testing.assert_close(scores, alone)


@pytest.mark.parametrize("make", [CrossFusion, MeanFusion, FlatFusion])
def test_padding_words_change_nothing(make):
    reader = Reader(make())
    if make is CrossFusion:
        reader.fusion.cross.gate.data.fill_(0.7)
    whole, word_BT = torch.rand(4, 56, 56), encode(QUESTIONS[4:])
    assert (word_BT[:, 4] == 0).all()
    torch.testing.assert_close(reader(whole, word_BT), reader(whole, word_BT[:, :4]))


def test_hidden_patches_change_nothing_and_a_missing_picture_is_fine():
    reader = Reader(CrossFusion())
    reader.fusion.cross.gate.data.fill_(0.7)
    whole, word_BT = torch.rand(2, 56, 56), encode(QUESTIONS)[[0, 5]]
    seen_BS = torch.zeros(2, 16, dtype=torch.bool)
    seen_BS[0, :4] = True  # the first picture: one row of patches; the second: none
    before = reader(whole, word_BT, seen_BS=seen_BS)
    assert before.isfinite().all()
    whole[0, 14:], whole[1] = 0.5, float("nan")
    assert reader(whole, word_BT, seen_BS=seen_BS).equal(before)
    whole[0, :14] = 0.5
    assert not reader(whole, word_BT, seen_BS=seen_BS)[0].equal(before[0])


def test_loss_goes_down(trained):
    readers, _ = trained
    for _, losses in readers.values():
        assert sum(losses[-50:]) < 0.9 * sum(losses[:50])


def test_attention_beats_the_mean(trained):
    readers, (whole, _, word_BT, answer_B) = trained
    cross = right(readers[CrossFusion][0], whole, word_BT, answer_B).mean()
    mean = right(readers[MeanFusion][0], whole, word_BT, answer_B).mean()
    assert cross > 0.6
    assert mean < 0.45


def test_attention_is_used(trained):
    readers, (whole, ask_B, word_BT, answer_B) = trained
    reader = readers[CrossFusion][0]
    uniform = deepcopy(reader)
    uniform.fusion.cross.to_query.weight.data.zero_()
    corner_S = torch.arange(16) // 8 * 2 + torch.arange(16) % 4 // 2
    asked_BS = corner_S.to(ask_B) == (ask_B % 4).unsqueeze(1)
    pairs = whole, word_BT, answer_B
    full = right(reader, *pairs).mean()
    assert right(uniform, *pairs).mean() < 0.6 * full
    assert right(reader, *pairs, seen_BS=asked_BS).mean() > 0.9 * full
    assert right(reader, *pairs, seen_BS=~asked_BS).mean() < 0.25
    assert right(reader, *pairs, seen_BS=asked_BS & False).mean() < 0.2
    reading = reader.fusion.reading(*reader.encode(whole, word_BT))
    assert (reading * asked_BS).sum(1).mean() > 0.7
    torch.testing.assert_close(reading.sum(1), torch.ones_like(reading[:, 0]))
