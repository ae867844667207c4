"""What the page on inductive bias states."""

import pytest
import torch

from snippets.questions.vision.inductive_bias import Convolutions, Patches


def test_each_model_ignores_its_own_changes(evidence):
    move = evidence.names["move"]  # 1 pixel, 2 pixels, 8 pixels, shuffled
    zero = {name: [x < 1e-12 for x in row] for name, row in move.items()}
    assert zero == {
        "convolutions, stride 1": [True, True, True, False],
        "convolutions, stride 2": [False, True, True, False],
        "patches, no positions": [False, False, True, True],
        "patches, positions": [False, False, False, False],
    }


def test_one_layer_of_attention_sees_every_pixel(evidence):
    assert evidence.names["reach"] == {
        "two 3×3 convolutions": 25,
        "one layer of attention": 1024,
    }


@pytest.mark.parametrize("pixels", [3, 5, 13])
def test_any_shift_is_nothing_to_circular_convolutions(pixels):
    image_13XY = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    model = Convolutions(1).double()
    other_13XY = image_13XY.roll((pixels, -pixels), (2, 3))
    torch.testing.assert_close(model(other_13XY), model(image_13XY))


def test_without_positions_patches_are_a_set():
    image_13XY = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    model = Patches(False).double()
    torch.testing.assert_close(model(image_13XY.roll(16, 2)), model(image_13XY))
    # Transposed patches have other pixels: that is not the same set.
    assert not torch.allclose(model(image_13XY.mT), model(image_13XY))
