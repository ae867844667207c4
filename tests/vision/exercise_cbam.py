"""Exercise: CBAM."""

from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import agreement, batch_independence, gap, no_input_mutated

# isort: split
# --8<-- [start:checks]
import torch
import torch.nn.functional as F


def map_of(draw: Draw, D: int = 6) -> torch.Tensor:
    """Return a map in float64."""
    X, Y = draw.size("X", 1, 5), draw.size("Y", 1, 5)
    return draw.normal(draw.size("B", 1, 2), D, X, Y)


def made(kind, *sizes):
    """Return a module of the attempt in float64, always with the same weights."""
    torch.manual_seed(0)
    return kind(*sizes).double()


@check(
    en="One gate a channel, and one a position",
    zh="通道门一个通道一个，空间门一个位置一个",
)
def shapes(attempt, draw):
    x = map_of(draw)
    channel, spatial = made(attempt.ChannelGate, 6, 2), made(attempt.SpatialGate, 3)
    agreement(channel(x) * 0, x[:, :, :1, :1] * 0, "the channel gates", "通道系数")
    agreement(spatial(x) * 0, x[:, :1] * 0, "the spatial gates", "空间系数")


@check(en="Inputs stay as they were", zh="不改动输入")
def unmutated(attempt, draw):
    no_input_mutated(made(attempt.CBAM, 6, 2, 3), map_of(draw))


@check(en="Samples do not mix", zh="样本之间互不影响")
def samples(attempt, draw):
    x = map_of(draw)
    block = made(attempt.CBAM, 6, 2, 3)
    batch_independence(block, torch.cat([x, x.flip(1) + 1]), draw)


@check(
    en="The channel gate looks at the mean and at the largest value",
    zh="通道门既看均值也看最大值",
)
def descriptors(attempt, draw):
    gate = made(attempt.ChannelGate, 6, 1)
    x = draw.normal(1, 6, 2, 2)
    spread = x - x.mean(dim=(2, 3), keepdim=True)
    if gap(gate(x), gate(x - spread)) < 1e-9:
        raise Broken(
            "with the same mean, the largest value changes nothing",
            "均值相同时，最大值不起作用",
        )
    flat = x.clone()
    flat[:, :, 1] = flat[:, :, 1] - 3  # the mean moves, the largest value mostly not
    flat = torch.maximum(flat, x.amin(dim=(2, 3), keepdim=True) - 3)
    flat[:, :, 0, 0] = x.amax(dim=(2, 3))
    other = flat.clone()
    other[:, :, 1, 1] -= 5
    if gap(gate(flat), gate(other)) < 1e-9:
        raise Broken(
            "with the same largest value, the mean changes nothing",
            "最大值相同时，均值不起作用",
        )


@check(en="The channel gate is the paper's", zh="通道门与原文一致")
def channel(attempt, draw):
    gate, x = made(attempt.ChannelGate, 6, 2), map_of(draw)
    one, two = gate.shared[0].weight, gate.shared[2].weight
    logit = sum(
        F.conv2d(
            F.conv2d(pool(x, 1), one[:, :, None, None]).relu(), two[:, :, None, None]
        )
        for pool in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d)
    )
    agreement(gate(x), logit.sigmoid(), "the channel gates", "通道系数")


@check(en="The spatial gate is the paper's", zh="空间门与原文一致")
def spatial(attempt, draw):
    gate, x = made(attempt.SpatialGate, 3), map_of(draw)
    planes = torch.stack([x.mean(1), x.max(1).values], dim=1)
    expected = F.conv2d(planes, gate.conv.weight, padding=1).sigmoid()
    agreement(gate(x), expected, "the spatial gates", "空间系数")


@check(
    en="Channels first, then the positions of what is left",
    zh="先通道，再对剩下的图做空间",
)
def sequence(attempt, draw):
    block, x = made(attempt.CBAM, 6, 2, 3), map_of(draw)
    left = x * block.channel(x)
    agreement(block(x), left * block.spatial(left), "the output", "输出")


CHECKS = [shapes, unmutated, samples, descriptors, channel, spatial, sequence]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    torch.manual_seed(0)
    block, x = attempt.CBAM(64), torch.randn(8, 64, 32, 32)
    return lambda: block(x)


# --8<-- [end:checks]
