"""Exercise: squeeze and excitation."""

from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import (
    agreement,
    batch_independence,
    gradient_flow,
    no_input_mutated,
)

# isort: split
# --8<-- [start:checks]
import torch


def block_and_map(attempt, draw: Draw, D: int = 6):
    """Return the attempt's block in float64 and a map."""
    torch.manual_seed(0)
    block = attempt.SqueezeExcitation(D, draw.size("reduction", 1, 3)).double()
    X, Y = draw.size("X", 1, 4), draw.size("Y", 1, 4)
    return block, draw.normal(draw.size("B", 1, 2), D, X, Y)


@check(
    en="The map keeps its shape, a gate for each image and channel",
    zh="形状不变，每张图每个通道一个系数",
)
def shapes(attempt, draw):
    block, x = block_and_map(attempt, draw)
    agreement(block(x) * 0, x * 0, "the map", "输出")
    agreement(block.gate(x) * 0, x[:, :, 0, 0] * 0, "the gates", "门控系数")


@check(
    en="Gates lie between 0 and 1, each for itself", zh="系数在 0 和 1 之间，各自独立"
)
def gates(attempt, draw):
    block, x = block_and_map(attempt, draw)
    gate = block.gate(50 * x)
    if (gate < 0).any() or (gate > 1).any():
        raise Broken("a gate lies outside of 0 to 1", "有系数不在 0 到 1 之间")
    with torch.no_grad():
        block.widen.weight.zero_()
        block.widen.bias.fill_(2.0)
    expected = torch.full_like(gate, 2.0).sigmoid()
    agreement(
        block.gate(x), expected, "with equal logits, a gate", "logit 相同时的系数"
    )


@check(
    en="Where on the map a value stands does not matter to the gates",
    zh="值在图上的位置不影响系数",
)
def places(attempt, draw):
    block, x = block_and_map(attempt, draw)
    moved = x.flatten(2).flip(2).reshape(x.shape)
    agreement(block.gate(moved), block.gate(x), "the gates", "门控系数")


@check(en="Samples do not mix", zh="样本之间互不影响")
def samples(attempt, draw):
    block, x = block_and_map(attempt, draw)
    batch_independence(block, torch.cat([x, x.flip(1) + 1]), draw)


@check(en="Inputs stay as they were", zh="不改动输入")
def unmutated(attempt, draw):
    block, x = block_and_map(attempt, draw)
    no_input_mutated(block, x)


@check(en="Gradients reach everything", zh="每个参数都有梯度")
def gradients(attempt, draw):
    torch.manual_seed(0)
    block = attempt.SqueezeExcitation(6, 1).double()
    gradient_flow(block, draw.normal(3, 6, 2, 2))


@check(en="Equals its two 1×1 convolutions", zh="等于两个 1×1 卷积的写法")
def convolutions(attempt, draw):
    block, x = block_and_map(attempt, draw)
    pooled = torch.nn.functional.adaptive_avg_pool2d(x, 1)
    for layer, act in ((block.narrow, torch.relu), (block.widen, torch.sigmoid)):
        weight = layer.weight[:, :, None, None]
        pooled = act(torch.nn.functional.conv2d(pooled, weight, layer.bias))
    agreement(block(x), x * pooled, "the output", "输出")


CHECKS = [shapes, unmutated, gates, places, samples, gradients, convolutions]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    torch.manual_seed(0)
    block, x = attempt.SqueezeExcitation(64), torch.randn(8, 64, 32, 32)
    return lambda: block(x)


# --8<-- [end:checks]
