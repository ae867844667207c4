# --8<-- [start:imports]
import math

# --8<-- [end:imports]
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets.properties.error_budget import error_budget, largest_error
from snippets.vision.cbam import CBAM, ChannelGate, SpatialGate, make_maps, train
from tests.running import run_main


# --8<-- [start:equals-loops]
def by_hand(block, x_BDXY):
    """Equations 1 to 3 with Python floats (float64); positions outside count as 0."""
    w0, w1 = (block.channel.shared[i].weight.tolist() for i in (0, 2))
    plane = block.spatial.conv.weight[0].tolist()
    half = len(plane[0]) // 2
    out = x_BDXY.double().cpu()
    for image in out:
        logits = [0.0] * len(image)
        for pool in (lambda values: sum(values) / len(values), max):
            pooled = [pool(channel.flatten().tolist()) for channel in image]
            hidden = [max(0.0, math.fsum(map(float.__mul__, w, pooled))) for w in w0]
            for d, w in enumerate(w1):
                logits[d] += math.fsum(map(float.__mul__, w, hidden))
        for channel, logit in zip(image, logits, strict=True):
            channel *= 1 / (1 + math.exp(-logit))
        X, Y = image.shape[1:]
        two = [image.mean(0).tolist(), image.amax(0).tolist()]
        for i in range(X):
            for j in range(Y):
                logit = math.fsum(
                    plane[p][a + half][b + half] * two[p][i + a][j + b]
                    for p in (0, 1)
                    for a in range(max(-half, -i), min(half, X - 1 - i) + 1)
                    for b in range(max(-half, -j), min(half, Y - 1 - j) + 1)
                )
                image[:, i, j] *= 1 / (1 + math.exp(-logit))
    return out


def by_pooling(block, x_BDXY):
    """The same block from PyTorch's pooling layers and explicit padding."""
    f = nn.functional
    w0, w1 = (block.channel.shared[i].weight for i in (0, 2))
    pooled = f.adaptive_avg_pool2d(x_BDXY, 1), f.adaptive_max_pool2d(x_BDXY, 1)
    logit = sum((part.flatten(1) @ w0.T).relu() @ w1.T for part in pooled)
    x = x_BDXY * logit.sigmoid()[..., None, None]
    two = f.pad(torch.stack([x.mean(1), x.max(1).values], dim=1), (3, 3, 3, 3))
    return x * f.conv2d(two, block.spatial.conv.weight).sigmoid()


def test_equals_loops():
    """Equations 1 to 3, number by number, within PyTorch's own rounding."""
    block = CBAM(16, reduction=4)
    x_BDXY = 3 * torch.randn(2, 16, 9, 5)
    exact = by_hand(block, x_BDXY)
    allowed = error_budget(by_pooling(block, x_BDXY).detach().cpu(), exact)
    error = largest_error(block(x_BDXY).detach().cpu(), exact)
    print(f"largest error {error:.1e}, allowed {allowed:.1e}")
    assert error <= allowed


# --8<-- [end:equals-loops]


# --8<-- [start:shared]
def test_both_descriptors_go_through_one_network():
    """On a flat map mean = max, so the gate is sigmoid(2 · MLP(mean))."""
    gate = ChannelGate(16, reduction=2).double()
    mean_BD = torch.randn(4, 16, dtype=torch.float64)
    flat_BDXY = mean_BD[:, :, None, None].expand(-1, -1, 5, 3)
    expected = torch.sigmoid(2 * gate.shared(mean_BD))
    torch.testing.assert_close(gate(flat_BDXY)[:, :, 0, 0], expected)
    weights = sum(p.numel() for p in gate.parameters())
    print(f"{weights} weights, 2·16·16/2 = {2 * 16 * 16 // 2}")
    assert weights == 2 * 16 * 16 // 2


# --8<-- [end:shared]


# --8<-- [start:order]
def test_order_matters():
    """Channel then spatial is not spatial then channel: the second sees the first."""
    block = CBAM(16, reduction=2).double()
    x_BDXY = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    swapped = block.spatial(x_BDXY) * x_BDXY
    swapped = block.channel(swapped) * swapped
    parallel = block.channel(x_BDXY) * block.spatial(x_BDXY) * x_BDXY
    size = block(x_BDXY).abs().max()
    for name, other in (("swapped", swapped), ("parallel", parallel)):
        change = (largest_error(other, block(x_BDXY)) / size).item()
        print(f"{name}: largest change {change:.1%} of the largest value")
        assert change > 0.001


# --8<-- [end:order]


# --8<-- [start:border]
def test_padding_shows_at_the_border():
    """On a flat map only the 3 outermost rows and columns get other gates."""
    gate = SpatialGate().double()
    gate_XY = gate(torch.ones(1, 8, 14, 14, dtype=torch.float64))[0, 0]
    same = (gate_XY - gate_XY[7, 7]).abs() < 1e-12
    print(f"{int(same.sum())} of 196 positions agree with the center")
    assert same[3:-3, 3:-3].all()
    assert int(same.sum()) == 8 * 8


# --8<-- [end:border]


# --8<-- [start:max-pool]
def test_max_pool_of_size_one_pools_nothing():
    """`MaxPool2d(1)` returns its input; `AdaptiveMaxPool2d(1)` pools the map."""
    x_BDXY = torch.randn(2, 8, 6, 6)
    assert torch.equal(nn.MaxPool2d(1)(x_BDXY), x_BDXY)
    pooled = nn.AdaptiveMaxPool2d(1)(x_BDXY)
    assert torch.equal(pooled, x_BDXY.amax(dim=(2, 3), keepdim=True))
    print("MaxPool2d(1):", tuple(nn.MaxPool2d(1)(x_BDXY).shape))
    print("AdaptiveMaxPool2d(1):", tuple(pooled.shape))


# --8<-- [end:max-pool]


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 7]))
def test_size_is_kept_and_values_shrink(X, Y, kernel):
    x_BDXY = torch.randn(2, 4, X, Y)
    out_BDXY = CBAM(4, reduction=2, kernel=kernel)(x_BDXY)
    assert out_BDXY.shape == x_BDXY.shape
    assert (out_BDXY.abs() <= x_BDXY.abs()).all()
    assert (out_BDXY * x_BDXY >= 0).all()


def test_channel_gate_ignores_positions():
    gate = ChannelGate(8, reduction=2).double()
    x_BDXY = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    shuffled = x_BDXY.flatten(2)[..., torch.randperm(16)].unflatten(2, (4, 4))
    torch.testing.assert_close(gate(shuffled), gate(x_BDXY))


def test_channel_gate_hears_mean_and_max():
    gate = ChannelGate(8, reduction=1).double()
    x_BDXY = torch.randn(1, 8, 4, 4, dtype=torch.float64)
    peak = x_BDXY.clone()
    peak[..., 0, 0] += 40
    same_mean = peak - (peak - x_BDXY).mean((2, 3), keepdim=True)
    assert largest_error(gate(same_mean), gate(x_BDXY)) > 1e-3
    lower = torch.minimum(x_BDXY, x_BDXY.amax((2, 3), keepdim=True))
    lower[x_BDXY < x_BDXY.amax((2, 3), keepdim=True)] -= 5
    assert largest_error(gate(lower), gate(x_BDXY)) > 1e-3


def test_spatial_gate_ignores_the_order_of_channels():
    gate = SpatialGate().double()
    x_BDXY = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(gate(x_BDXY[:, torch.randperm(8)]), gate(x_BDXY))


def test_spatial_gate_moves_with_the_image():
    gate = SpatialGate().double()
    x_BDXY = torch.randn(1, 4, 12, 12, dtype=torch.float64)
    moved = gate(x_BDXY.roll((1, 1), dims=(2, 3)))[..., 4:-4, 4:-4]
    torch.testing.assert_close(moved, gate(x_BDXY)[..., 3:-5, 3:-5])


def test_gates_lie_between_zero_and_one_and_do_not_sum_to_one():
    block = CBAM(32, reduction=2)
    x_BDXY = torch.randn(2, 32, 8, 8)
    for gate in (block.channel(x_BDXY), block.spatial(x_BDXY)):
        assert (gate > 0).all()
        assert (gate < 1).all()
        assert (gate.flatten(1).sum(1) > 5).all()


def test_seven_by_seven_has_98_weights():
    assert sum(p.numel() for p in SpatialGate().parameters()) == 2 * 49


def test_gradients():
    block = CBAM(4, reduction=2, kernel=3).double()
    x_BDXY = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x_BDXY,))


@pytest.mark.parametrize("kernel", [0, 2, 6, -1])
def test_even_kernel_is_refused(kernel):
    with pytest.raises(ValueError, match=f"kernel is {kernel}: expected an odd"):
        SpatialGate(kernel)


def test_too_few_channels_are_refused():
    with pytest.raises(ValueError, match="reduction is 16, model_size is 8"):
        CBAM(8)


def test_map_with_other_channels_is_refused():
    with pytest.raises(ValueError, match=r"x has shape \(2, 7, 4, 4\): expected"):
        CBAM(8, 2)(torch.randn(2, 7, 4, 4))


def test_both_gates_are_needed_for_the_task():
    class Only(nn.Module):
        def __init__(self, gate):
            super().__init__()
            self.gate = gate

        def forward(self, x_BDXY):
            return self.gate(x_BDXY) * x_BDXY

    both = train(CBAM(8, reduction=1))
    assert both < 0.1 * train(Only(ChannelGate(8, 1)))
    assert both < 0.1 * train(Only(SpatialGate()))


def test_task_targets_lie_in_the_maps():
    x_BDXY, wanted_BDXY = make_maps(8)
    assert ((wanted_BDXY == 0) | (wanted_BDXY == x_BDXY)).all()
    assert (wanted_BDXY[:, 4:] == 0).all()
    assert ((wanted_BDXY[:, 0] != 0).sum((1, 2)) == 29).all()


def test_page():
    result = run_main("snippets.vision.cbam")
    output, names = result.output, result.names
    assert "256          8192            98" in output
    assert "channel 2.4 M, spatial 2.7 M, 3x3 conv 1850 M" in output
    assert names["error"] < 0.05 * names["untouched"]
    gate = names["channel_BD11"].mean(0).flatten()
    assert gate[:4].min() > 0.95
    assert gate[4:].max() < 0.05
    disc, spatial = names["wanted_BDXY"][:, 0] != 0, names["spatial_B1XY"][:, 0]
    assert spatial[disc].mean() > 0.9
    assert (spatial[~disc] < 0.1).float().mean() > 0.8
