"""What the page on shifted windows states."""

import pytest
import torch

from snippets.questions.vision.shifted_windows import cut, shifted_mask


def test_the_page_prints_what_it_quotes(evidence):
    assert "[256, 128, 128, 64] of 256" in evidence.output
    assert "wrapped pairs: 448 of 1024" in evidence.output
    assert "plain, then plain  : 16 to 16 positions" in evidence.output
    assert "plain, then shifted: 16 to 64 positions" in evidence.output


def test_only_the_mask_gives_the_nine_windows(evidence):
    names = evidence.names
    torch.testing.assert_close(names["masked_N1CK"], names["true_N1CK"])
    assert (names["error_N"][1:] > 0.1).all()


def test_opposite_corners_share_a_window_and_may_not_attend():
    place_XY1 = torch.arange(64).view(8, 8, 1).roll((-2, -2), (0, 1))
    last_C = cut(place_XY1, 4)[-1, :, 0].tolist()
    first, end = last_C.index(0), last_C.index(63)
    assert not shifted_mask(8, 4, 2)[-1, first, end]


@pytest.mark.parametrize(("size", "side", "shift"), [(8, 4, 2), (14, 7, 3)])
def test_coordinates_after_the_roll_need_one_more_cut(size, side, shift):
    place_X = torch.arange(size)
    masks = []
    for band_X in (place_X // side, place_X // side + (place_X >= size - shift)):
        region_XX1 = (band_X[:, None] * size + band_X)[..., None]
        region_NC = cut(region_XX1, side)[..., 0]
        masks.append(region_NC[:, :, None] == region_NC[:, None, :])
    assert masks[0].all()
    assert masks[1].equal(shifted_mask(size, side, shift))


@pytest.mark.parametrize(("size", "side"), [(8, 4), (14, 7), (6, 2)])
def test_no_shift_needs_no_mask(size, side):
    assert shifted_mask(size, side, 0).all()
    assert not shifted_mask(size, side, side // 2).all()
