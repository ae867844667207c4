"""The photo of nuclei: what it holds, strips that do not leak, tiles and crops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snippets.applications import nuclei
from snippets.applications.nuclei import (
    COLUMNS,
    load_nuclei,
    random_crops,
    strip,
    tiles,
)


def test_photo_and_masks_are_what_the_page_says():
    """512 × 512 pixels, 125 nuclei, 73, 16 and 30 of them in the strips."""
    photo, mask = load_nuclei()
    assert photo.shape == mask.shape == (512, 512)
    assert 0 <= photo.min() < photo.max() <= 1
    assert len(mask.unique()) == 125 + 1
    counts = [len(strip(mask, part).unique()) - 1 for part in COLUMNS]
    assert counts == [73, 16, 30]


def test_strips_share_no_column_and_no_nucleus():
    """What is learned from, tuned on and tested on lies apart."""
    mask = load_nuclei()[1]
    columns = [set(range(*ends)) for ends in COLUMNS.values()]
    numbers = [set(strip(mask, part).unique().tolist()) - {0} for part in COLUMNS]
    for sets in (columns, numbers):
        assert len(set.union(*sets)) == sum(map(len, sets))
    widths = [len(part) for part in columns]
    assert [strip(mask, part).shape[1] for part in COLUMNS] == widths


def test_another_photo_is_refused(monkeypatch):
    """A digest that does not fit stops the program."""
    monkeypatch.setitem(nuclei.DIGESTS, "img2d.tif", "0" * 64)
    with pytest.raises(ValueError, match="SHA-256"):
        load_nuclei()


@given(
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    size=st.integers(1, 4),
    step=st.integers(1, 4),
)
def test_tiles_equal_slices(rows, columns, size, step):
    """Each square is a slice, row by row."""
    X, Y = (size + (n - 1) * step for n in (rows, columns))
    picture = torch.arange(X * Y).view(X, Y)
    expected = [
        picture[x : x + size, y : y + size]
        for x in range(0, X - size + 1, step)
        for y in range(0, Y - size + 1, step)
    ]
    assert torch.equal(tiles(picture, size, step), torch.stack(expected))


def test_random_crops_turn_photo_and_mask_together():
    """Each crop of the mask lies in the picture in one of eight ways, the photo alike."""
    mask = torch.arange(12 * 9).view(12, 9)
    crops, numbers = random_crops(mask * 2.0, mask, count=300, size=4)
    assert crops.shape == numbers.shape == (300, 4, 4)
    assert torch.equal(crops, numbers * 2.0)
    ways, corners = set(), set()
    for number in numbers:
        down, right = number[1, 0] - number[0, 0], number[0, 1] - number[0, 0]
        ways.add((down.item(), right.item()))
        assert {abs(down.item()), abs(right.item())} == {1, 9}
        corners.add(number.min().item())
    assert len(ways) == 8
    # Every place from the first row and column to the last is drawn.
    assert corners == {9 * x + y for x in range(9) for y in range(6)}
