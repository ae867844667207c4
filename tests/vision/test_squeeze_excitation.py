# --8<-- [start:imports]
import math

# --8<-- [end:imports]
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets.properties.error_budget import error_budget, largest_error
from snippets.vision.squeeze_excitation import SqueezeExcitation, make_maps, train
from tests.running import run_main


# --8<-- [start:equals-loops]
def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def by_hand(block, x_BDXY):
    """Equations 2 to 4 with Python floats (float64), one number at a time."""
    narrow, narrow_bias, widen, widen_bias = (p.tolist() for p in block.parameters())
    out = x_BDXY.double().cpu()
    for image in out:
        mean = [sum(map(sum, rows)) / image[0].numel() for rows in image.tolist()]
        hidden = [
            max(0, dot(w, mean) + b) for w, b in zip(narrow, narrow_bias, strict=True)
        ]
        for channel, w, b in zip(image, widen, widen_bias, strict=True):
            channel *= 1 / (1 + math.exp(-dot(w, hidden) - b))
    return out


def by_convolution(block, x_BDXY):
    """The same block from PyTorch's pooling and 1×1 convolutions."""
    x = nn.functional.adaptive_avg_pool2d(x_BDXY, 1)
    for layer, act in ((block.narrow, torch.relu), (block.widen, torch.sigmoid)):
        x = act(nn.functional.conv2d(x, layer.weight[:, :, None, None], layer.bias))
    return x * x_BDXY


def test_equals_loops():
    """Equations 2 to 4, number by number, within PyTorch's own rounding."""
    block = SqueezeExcitation(32, reduction=4)
    x_BDXY = 5 * torch.randn(2, 32, 7, 5)
    exact = by_hand(block, x_BDXY)
    allowed = error_budget(by_convolution(block, x_BDXY).detach().cpu(), exact)
    error = largest_error(block(x_BDXY).detach().cpu(), exact)
    print(f"largest error {error:.1e}, allowed {allowed:.1e}")
    assert error <= allowed


# --8<-- [end:equals-loops]


# --8<-- [start:positions]
def test_position_does_not_matter():
    """Shuffled positions: the same gates, and an output shuffled in the same way."""
    block = SqueezeExcitation(32, reduction=4).double()
    x_BDXY = torch.randn(2, 32, 6, 6, dtype=torch.float64)
    order = torch.randperm(36)
    shuffled = x_BDXY.flatten(2)[..., order].unflatten(2, (6, 6))
    torch.testing.assert_close(block.gate(shuffled), block.gate(x_BDXY))
    expected = block(x_BDXY).flatten(2)[..., order].unflatten(2, (6, 6))
    torch.testing.assert_close(block(shuffled), expected)
    print("gates unchanged, output shuffled along")


# --8<-- [end:positions]


# --8<-- [start:softmax-gate]
class SoftmaxGate(SqueezeExcitation):
    """The slip: softmax over the channels where the paper has a sigmoid."""

    def gate(self, x_BDXY):
        """Return gates that sum to one."""
        return super().gate(x_BDXY).logit().softmax(dim=1)


def test_softmax_cannot_keep_two_channels():
    """Gates that sum to one cannot leave two channels whole."""
    right = train(SqueezeExcitation(8, reduction=1))
    wrong = train(SoftmaxGate(8, reduction=1))
    print(f"error with sigmoid {right:.0e}, with softmax {wrong:.0e}")
    assert 100 * right < wrong


# --8<-- [end:softmax-gate]


# --8<-- [start:wrong-axes]
def test_wrong_axes_run_when_sizes_agree():
    """Averaging (1, 2) gives (B, Y): no error if Y equals D, but position matters."""
    block = SqueezeExcitation(8, reduction=1).double()
    x_BDXY = torch.randn(2, 8, 8, 8, dtype=torch.float64)

    def wrong_gate(x_BDXY):
        return torch.sigmoid(block.widen(block.narrow(x_BDXY.mean(dim=(1, 2))).relu()))

    flipped = x_BDXY.flip(3)
    right = largest_error(block.gate(flipped), block.gate(x_BDXY))
    wrong = largest_error(wrong_gate(flipped), wrong_gate(x_BDXY))
    print(f"mirrored image: right gates move by {right:.0e}, wrong ones by {wrong:.0e}")
    assert right < 1e-12 < 1e-3 < wrong


# --8<-- [end:wrong-axes]


def test_without_the_squeeze_the_image_is_not_seen():
    """Layers fed with x itself gate each position by that position alone."""
    block = SqueezeExcitation(8, reduction=1)
    x_BDXY = torch.randn(1, 8, 6, 6)
    changed = x_BDXY.clone()
    changed[..., 0, 0] += 10

    def forgot_squeeze(x_BDXY):
        x_BXYD = x_BDXY.movedim(1, 3)
        return torch.sigmoid(block.widen(block.narrow(x_BXYD).relu())).movedim(3, 1)

    gate = block.gate(changed) - block.gate(x_BDXY)
    far = (forgot_squeeze(changed) - forgot_squeeze(x_BDXY))[..., 1:, 1:]
    print(f"one corner changed: SE gates move by up to {gate.abs().max():.2f},")
    print(f"gates elsewhere, without the squeeze, by {far.abs().max():.2f}")
    assert gate.abs().max() > 0
    assert far.abs().max() == 0


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 5), st.integers(1, 5))
def test_gates_lie_between_zero_and_one(B, D, X, Y):
    block = SqueezeExcitation(D, reduction=1 + D // 2)
    gate_BD = block.gate(3 * torch.randn(B, D, X, Y))
    assert gate_BD.shape == (B, D)
    assert (gate_BD > 0).all()
    assert (gate_BD < 1).all()


def test_gates_do_not_sum_to_one():
    gate_BD = SqueezeExcitation(64).gate(torch.randn(4, 64, 5, 5))
    assert (gate_BD.sum(1) > 20).all()


def test_only_the_mean_of_a_channel_counts():
    block = SqueezeExcitation(8, reduction=2).double()
    x_BDXY = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    flat_BDXY = x_BDXY.mean((2, 3), keepdim=True).expand(2, 8, 3, 9)
    torch.testing.assert_close(block.gate(flat_BDXY), block.gate(x_BDXY))


def test_images_of_a_batch_do_not_mix():
    block = SqueezeExcitation(8, reduction=2).double()
    x_BDXY = torch.randn(3, 8, 4, 4, dtype=torch.float64)
    for image in range(3):
        alone = block(x_BDXY[image : image + 1])[0]
        torch.testing.assert_close(block(x_BDXY)[image], alone)


def test_one_scale_per_channel():
    block = SqueezeExcitation(8, reduction=2).double()
    x_BDXY = torch.rand(2, 8, 4, 5, dtype=torch.float64) + 1
    ratio_BDXY = block(x_BDXY) / x_BDXY
    torch.testing.assert_close(
        ratio_BDXY, block.gate(x_BDXY)[:, :, None, None].expand_as(x_BDXY)
    )


@pytest.mark.parametrize(("size", "reduction"), [(16, 4), (64, 16), (48, 3)])
def test_weights_beside_biases_are_two_d_squared_over_r(size, reduction):
    block = SqueezeExcitation(size, reduction)
    weights = sum(p.numel() for p in block.parameters() if p.ndim == 2)
    biases = sum(p.numel() for p in block.parameters() if p.ndim == 1)
    assert weights == 2 * size**2 // reduction
    assert biases == size + size // reduction


def test_gradients():
    block = SqueezeExcitation(4, reduction=2).double()
    x_BDXY = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x_BDXY,))


@pytest.mark.parametrize("reduction", [0, -1, 9, 16])
def test_reduction_that_leaves_no_unit_is_refused(reduction):
    with pytest.raises(ValueError, match=f"reduction is {reduction}, model_size is 8"):
        SqueezeExcitation(8, reduction)


@pytest.mark.parametrize(
    "shape", [(8, 4, 4), (2, 7, 4, 4), (2, 4, 4, 8), (1, 1, 8, 4, 4)]
)
def test_map_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"x has shape .* expected \(batch, 8,"):
        SqueezeExcitation(8, 2)(torch.randn(shape))


def test_linear_layer_with_no_unit_ignores_the_image():
    """Why the refusal: torch allows Linear(8, 0), and the gate becomes a constant."""
    with pytest.warns(UserWarning, match="zero-element"):
        narrow, widen = torch.nn.Linear(8, 8 // 16), torch.nn.Linear(8 // 16, 8)
    gate_BD = torch.sigmoid(widen(narrow(torch.randn(2, 8)).relu()))
    assert torch.equal(gate_BD[0], gate_BD[1])


def test_task_keeps_what_it_says():
    x_BDXY, wanted_BDXY, kind_B = make_maps(64)
    kept_BD = (wanted_BDXY == x_BDXY).all(dim=3).all(dim=2)
    for image in range(64):
        kept = kept_BD[image].nonzero().flatten().tolist()
        assert kept == ([0, 1] if kind_B[image] == 0 else [2])


def test_page():
    result = run_main("snippets.vision.squeeze_excitation")
    output = result.output
    assert "in the 16 blocks of ResNet-50: 2.51 M weights" in output
    assert "SE 1.6 M, 3x3 conv 1850 M" in output
    assert "smallest 0.38, largest 0.63" in output
    sums = result.names["mean_2D"].sum(1)
    assert ((sums - torch.tensor([2.0, 1.0])).abs() < 0.1).all()
