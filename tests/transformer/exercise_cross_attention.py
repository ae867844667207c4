"""Exercise: cross-attention."""

from snippets.properties.cost import count_flops
from snippets.properties.judge import Broken, check
from snippets.properties.kit import (
    agreement,
    batch_independence,
    gradient_flow,
    no_input_mutated,
)

# isort: split
# --8<-- [start:checks]
import math

import torch
from torch import nn


def torch_twin(layer):
    """Return PyTorch's module with the attempt's weights, of another size than D."""
    D, M = layer.to_q.in_features, layer.to_k.in_features
    twin = nn.MultiheadAttention(D, layer.heads, kdim=M, vdim=M, batch_first=True)
    three = (layer.to_q, layer.to_k, layer.to_v)
    with torch.no_grad():
        for name, to in zip("qkv", three, strict=True):
            getattr(twin, f"{name}_proj_weight").copy_(to.weight)
        twin.in_proj_bias.copy_(torch.cat([to.bias for to in three]))
        twin.out_proj.load_state_dict(layer.to_out.state_dict())
    return twin.double()


def fresh(attempt, draw, B=1):
    """Return the attempt's layer in float64, queries and a source of drawn lengths."""
    H, K = draw.size("heads", 1, 3), draw.size("size of a head", 1, 3)
    torch.manual_seed(0)
    layer = attempt.CrossAttention(H * K, H * K + 2, H).double()
    x = draw.normal(B, draw.size("T", 1, 4), H * K)
    return layer, x, draw.normal(B, draw.size("S", 1, 5), H * K + 2)


@check(en="Keys and values are as long as the source", zh="键和值与源序列等长")
def lengths(attempt, draw):
    layer, x, y = fresh(attempt, draw, B=2)
    memory, K = layer.remember(y), layer.to_q.in_features // layer.heads
    expected = (2, layer.heads, y.shape[1], K)
    for en, zh, came in (
        ("keys", "键", memory.k_BHSK),
        ("values", "值", memory.v_BHSK),
    ):
        if tuple(came.shape) != expected:
            raise Broken(
                f"{en} have shape {tuple(came.shape)}, expected {expected}",
                f"{zh}的形状是 {tuple(came.shape)}，应为 {expected}",
            )
    agreement(layer(x, y) * 0, x * 0, "the output", "输出")


@check(en="The order of the source does not matter", zh="源序列的次序不影响结果")
def source_is_a_set(attempt, draw):
    layer, x, y = fresh(attempt, draw)
    agreement(layer(x, y.flip(1)), layer(x, y), "the output", "输出")


@check(en="Queries do not affect each other", zh="查询之间互不影响")
def queries_apart(attempt, draw):
    layer, x, y = fresh(attempt, draw)
    agreement(layer(x, y)[:, :1], layer(x[:, :1], y), "the first output", "第一个输出")


@check(en="Padding of the source changes nothing", zh="源序列的填充不影响结果")
def padding(attempt, draw):
    layer, x, y = fresh(attempt, draw, B=2)
    n = draw.size("positions of padding", 0, 3)
    filler = torch.full((2, n, y.shape[2]), draw.choice("padding", [100.0, math.inf]))
    keep = torch.arange(y.shape[1] + n).expand(2, y.shape[1] + n) < y.shape[1]
    out = layer(x, torch.cat([y, filler.double()], dim=1), keep)
    agreement(out, layer(x, y), "the output", "输出")


@check(en="NaN in padding reaches no gradient", zh="填充里的 NaN 不进入梯度")
def clean_gradients(attempt, draw):
    layer, x, y = fresh(attempt, draw)
    filled = torch.cat([y, torch.full_like(y[:, :1], math.nan)], dim=1)
    keep = torch.arange(filled.shape[1]).unsqueeze(0) < y.shape[1]
    layer(x, filled, keep).square().sum().backward()
    for name, one in layer.named_parameters():
        if one.grad is None or not one.grad.isfinite().all():
            raise Broken(
                f"the gradient of {name} is missing or not finite",
                f"{name} 的梯度缺失或不是有限值",
            )


@check(en="Samples do not mix", zh="样本之间互不影响")
def samples(attempt, draw):
    layer, x, y = fresh(attempt, draw, B=2)
    batch_independence(lambda x: layer(x, y[:1].expand(len(x), -1, -1)), x, draw)
    batch_independence(lambda y: layer(x[:1].expand(len(y), -1, -1), y), y, draw)


@check(en="Step by step equals in one go", zh="逐步等于一次算完")
def steps(attempt, draw):
    layer, x, y = fresh(attempt, draw)
    memory = layer.remember(y)
    parts = [layer.read(one, memory) for one in x.split(1, dim=1)]
    agreement(torch.cat(parts, dim=1), layer(x, y), "the output", "输出")


@check(en="A step does not project the source again", zh="每一步不重算源序列的投影")
def work(attempt, draw):
    torch.manual_seed(0)
    layer = attempt.CrossAttention(8, 12, 2).double()
    x, y = draw.normal(1, 1, 8), draw.normal(1, 20, 12)
    memory = layer.remember(y)
    came, enough = count_flops(lambda: layer.read(x, memory)), 4 * 8**2 + 4 * 20 * 8
    if came > enough:
        raise Broken(
            f"a step takes {came} FLOPs, {enough} are enough",
            f"一步用了 {came} FLOPs，{enough} 就够",
        )


@check(
    en="Gradients reach both sequences and every weight",
    zh="两个序列和每个权重都有梯度",
)
def gradients(attempt, draw):
    torch.manual_seed(0)
    layer = attempt.CrossAttention(6, 5, 2).double()
    x, y = draw.normal(2, 3, 6), draw.normal(2, 4, 5)
    no_input_mutated(layer, x, y)
    with torch.no_grad():  # the bias of keys shifts all scores of a row: no gradient
        layer.to_k.bias = None
    gradient_flow(layer, x, y)


@check(en="Equals nn.MultiheadAttention", zh="等于 nn.MultiheadAttention")
def pytorch(attempt, draw):
    layer, x, y = fresh(attempt, draw, B=2)
    keep = draw.mask(2, y.shape[1])
    keep[:, 0] = True
    expected, _ = torch_twin(layer)(x, y, y, key_padding_mask=~keep)
    agreement(layer(x, y, keep), expected, "the output", "输出")


CHECKS = [
    lengths,
    source_is_a_set,
    queries_apart,
    padding,
    clean_gradients,
    samples,
    steps,
    work,
    gradients,
    pytorch,
]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    torch.manual_seed(0)
    layer = attempt.CrossAttention(128, 192, 8)
    x, y = torch.randn(2, 32, 128), torch.randn(2, 512, 192)

    def decode():
        memory = layer.remember(y)
        return [layer.read(one, memory) for one in x.split(1, dim=1)]

    return decode


# --8<-- [end:checks]
