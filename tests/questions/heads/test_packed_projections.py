"""One product for three projections."""

import pytest
import torch


def test_packed_equals_apart(evidence):
    """Outputs of unequal parts, and gradients of the input and of the weights."""
    names = evidence.names
    for layer, part in zip(names["apart"], names["cut_any"], strict=True):
        assert part.shape[-1] == layer.out_features
        assert part.allclose(layer(names["x_BTD"]))
    assert [len(slopes) for slopes in names["slopes_any"]] == [4, 4]
    torch.testing.assert_close(*names["slopes_any"])


def test_two_of_three_rows_change_places(evidence):
    """Only those that both layouts give to the same projection stay."""
    assert evidence.names["wrong"] == pytest.approx(2 / 3)


def test_pytorch_stacks_three_blocks(evidence):
    """Its weights read head by head give another output."""
    gap = evidence.names["gap"]
    assert gap["three blocks"] < 1e-6
    assert gap["head by head"] > 0.01
