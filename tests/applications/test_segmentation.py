"""The strips of the photo, the U-Net with its three middles, and the measures."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.filters import gaussian, threshold_otsu
from sklearn.metrics import f1_score, jaccard_score

from snippets.applications.blocks import equal_weights
from snippets.applications.nuclei import (
    load_nuclei,
    strip,
    tiles,
)
from snippets.applications.segmentation import (
    Axial,
    Pointwise,
    UNet,
    iou_and_dice,
    otsu,
    train,
)
from snippets.vision.non_local import NonLocal
from tests.shape_names import lies_of

MIDDLES = {
    "pointwise": lambda: Pointwise(32, 129),
    "non-local": lambda: NonLocal(32, 64),
    "axial": lambda: Axial(32),
}


def awake(middle):
    """Return the layer, the last projection of a non-local block no longer zero."""
    if isinstance(middle, NonLocal):
        torch.nn.init.normal_(middle.last.weight)
    return middle


# ---- the model ----


@pytest.mark.parametrize("name", MIDDLES)
@given(batch=st.integers(1, 3), rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_shapes(name, batch, rows, columns):
    """A score for each pixel, whatever the picture's size."""
    photo = torch.randn(batch, 4 * rows, 4 * columns)
    assert UNet(MIDDLES[name]())(photo).shape == photo.shape


def test_the_race_is_fair():
    """The three networks have the same number of parameters, within 0.2 percent."""
    counts = [
        sum(part.numel() for part in UNet(make()).parameters())
        for make in MIDDLES.values()
    ]
    assert max(counts) < 1.002 * min(counts)


def test_axial_attention_sees_its_row_and_column_and_through_them_all():
    """One direction alone reaches a cross, both together reach every position."""
    torch.manual_seed(0)
    layer = Axial(8).double()
    x = torch.randn(1, 8, 3, 5, dtype=torch.double)
    other = x.clone()
    other[:, :, 1, 2] += 1
    moved = (layer(x) != layer(other)).any(1)[0]
    assert moved.all()
    torch.nn.init.zeros_(layer.along_columns.to_out.weight)
    moved = (layer(x) != layer(other)).any(1)[0]
    assert moved[1].all()
    assert not moved[[0, 2]].any()


def test_axial_attention_equals_a_loop():
    """Rows one by one, then columns one by one."""
    torch.manual_seed(0)
    layer = Axial(8).double()
    x = torch.randn(2, 8, 3, 5, dtype=torch.double)
    expected = x.clone()
    for row in range(3):
        line = expected[:, :, row].mT
        expected[:, :, row] = (line + layer.along_rows(line)).mT
    for column in range(5):
        line = expected[..., column].mT
        expected[..., column] = (line + layer.along_columns(line)).mT
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("name", MIDDLES)
def test_the_middle_decides_how_far_a_pixel_reaches(name):
    """Only attention carries the lower right corner to the upper left one."""
    torch.manual_seed(0)
    model = UNet(awake(MIDDLES[name]()))
    photo = torch.randn(1, 64, 64)
    other = photo.clone()
    other[0, -1, -1] += 10
    same = model(photo)[0, 0, 0].equal(model(other)[0, 0, 0])
    assert same is (name == "pointwise")


def test_the_control_sees_about_twenty_pixels_far():
    """A change 24 pixels away moves nothing, one 12 pixels away does."""
    torch.manual_seed(0)
    model = UNet(Pointwise(32, 129)).double()
    photo = torch.randn(1, 64, 64, dtype=torch.double)
    for distance, moves in ((24, False), (12, True)):
        other = photo.clone()
        other[0, 32, 32 + distance :] += 100
        same = model(photo)[0, 32, 32].equal(model(other)[0, 32, 32])
        assert same is not moves


@pytest.mark.parametrize("name", ["non-local", "axial"])
def test_attention_is_used(name):
    """Equal weights in place of learned ones change the scores, not the model itself."""
    torch.manual_seed(0)
    model = UNet(awake(MIDDLES[name]()))
    photo = torch.randn(1, 32, 32) * 10
    before = model(photo)
    assert not torch.allclose(
        equal_weights(model, "theta" if name == "non-local" else "to_q")(photo),
        before,
        atol=1e-5,
    )
    assert torch.equal(model(photo), before)


def test_equal_weights_are_the_mean_of_the_positions():
    """The copy of a non-local block adds one and the same vector everywhere."""
    model = equal_weights(UNet(awake(NonLocal(32, 64))), "theta")
    x = torch.randn(1, 32, 4, 4)
    middle = model.middle
    mean = middle.last(middle.g(x).mean((2, 3), keepdim=True))
    torch.testing.assert_close(middle(x), x + mean)


def test_loss_goes_down():
    """A few steps on one corner of the photo teach it."""
    torch.manual_seed(0)
    photo, mask = (picture[:64, 64:128] for picture in load_nuclei())
    photo = (photo - photo.mean()) / photo.std()
    model = UNet(Axial(32))
    losses = train(model, photo, mask, steps=25)
    assert len(losses) == 25
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


# ---- the measures ----


@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.1, 0.9))
def test_measures_equal_sklearn(seed, share):
    """IoU is the Jaccard score of the class nucleus, Dice its F1."""
    generator = np.random.default_rng(seed)
    found, truth = generator.random((2, 5, 7)) < share
    truth[0, 0] = True
    iou, dice = iou_and_dice(torch.tensor(found), torch.tensor(truth))
    assert iou == pytest.approx(jaccard_score(truth.ravel(), found.ravel()))
    assert dice == pytest.approx(f1_score(truth.ravel(), found.ravel()))
    assert dice == pytest.approx(2 * iou / (1 + iou))


def test_otsu_is_the_library_s():
    """Blur, threshold, compare; of the strip that is given and no other."""
    photo = strip(load_nuclei()[0], "validation")
    smooth = gaussian(photo.numpy(), 1)
    expected = smooth > threshold_otsu(smooth)
    assert torch.equal(otsu(photo, 1), torch.tensor(expected))


def test_names_tell_the_truth():
    """The names of the main block's tensors fit each other."""
    photo_XX, mask_XX = load_nuclei()
    view_BCC = tiles(strip(photo_XX, "test"))
    bright_XY = otsu(strip(photo_XX, "test"), 1)
    model = UNet(NonLocal(32, 64))
    weight_BTS = model.middle.weight(model.bottom(view_BCC)[-1])
    assert weight_BTS.shape == (16, 256, 256)
    names = {
        "photo_XX": photo_XX,
        "mask_XX": mask_XX,
        "view_BCC": view_BCC,
        "bright_XY": bright_XY,
        "weight_BTS": weight_BTS,
    }
    assert not lies_of(names)
