"""What the page on patch embedding states."""

import pytest
import torch
from torch.nn import functional as F

from snippets.questions.vision.patch_embedding import reordered, squares, strips


@pytest.mark.parametrize(
    "line",
    [
        "squares   (1, 196, 768): ",
        "strips    (1, 196, 768): ",
        "parameters: 590592",
        "squares: channels, rows, columns [3, 16, 16]",
        "strips : channels, rows, columns [1, 4, 224]",
        "230 pixels: (1, 8, 14, 14)",
        "by reshape: RuntimeError",
    ],
)
def test_the_page_prints_what_it_quotes(evidence, line):
    assert line in evidence.output


def test_only_squares_equal_the_convolution(evidence):
    error = evidence.names["error"]
    assert error["squares"] < 1e-12
    assert min(error["reordered"], error["strips"]) > 0.1


def test_reordered_holds_the_same_numbers_in_each_patch():
    image_B3XY = torch.arange(2 * 3 * 8 * 12.0).view(2, 3, 8, 12)
    one_BPF, other_BPF = squares(image_B3XY, 4), reordered(image_B3XY, 4)
    assert not one_BPF.equal(other_BPF)
    assert one_BPF.sort(-1).values.equal(other_BPF.sort(-1).values)
    assert not one_BPF.sort(-1).values.equal(
        strips(image_B3XY, 4).sort(-1).values,
    )


@pytest.mark.parametrize(("rows", "columns", "side"), [(1, 1, 3), (2, 3, 4), (3, 1, 2)])
def test_squares_are_what_unfold_gives(rows, columns, side):
    image_B3XY = torch.randn(2, 3, rows * side, columns * side)
    unfolded_BFP = F.unfold(image_B3XY, kernel_size=side, stride=side)
    assert squares(image_B3XY, side).equal(unfolded_BFP.transpose(1, 2))
