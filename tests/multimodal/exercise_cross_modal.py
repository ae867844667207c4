"""Exercise: cross-modal attention."""

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


def drawn_pair(attempt, draw, gate=1.5):
    """Return the attempt's layer in float64, its gate open, a text and an image."""
    H = draw.size("heads", 1, 3)
    torch.manual_seed(0)
    layer = attempt.CrossModalAttention(3, 4, 2 * H, H).double()
    nn.init.constant_(layer.gate, gate)
    T, S = draw.size("T", 1, 3), draw.size("S", 1, 4)
    return layer, draw.normal(2, T, 3), draw.normal(2, S, 4)


def torch_twin(layer, x, y, keep):
    """Return what PyTorch's module reads with the attempt's weights, and its weights."""
    M = layer.to_query.out_features
    twin = nn.MultiheadAttention(M, layer.heads, bias=False, batch_first=True).double()
    with torch.no_grad():
        twin.in_proj_weight.copy_(torch.eye(M).repeat(3, 1))
        twin.out_proj.weight.copy_(torch.eye(M))
    read, weight = twin(
        x @ layer.to_query.weight.mT,
        y @ layer.to_key.weight.mT,
        y @ layer.to_value.weight.mT,
        key_padding_mask=~keep,
        average_attn_weights=False,
    )
    return read @ layer.to_out.weight.mT, weight


@check(en="A closed gate lets nothing in", zh="门关着时什么也不进来")
def closed(attempt, draw):
    layer, x, y = drawn_pair(attempt, draw, gate=0.0)
    agreement(layer(x, y), x, "the output", "输出")


@check(en="Without an image the text passes unchanged", zh="没有图像时文本原样通过")
def missing(attempt, draw):
    layer, x, y = drawn_pair(attempt, draw)
    keep = torch.ones(2, y.shape[1], dtype=torch.bool)
    keep[0] = False
    y = y.masked_fill(~keep.unsqueeze(-1), draw.choice("there", [0.0, math.nan]))
    agreement(layer(x, y, None, keep)[0], x[0], "the output", "输出")
    weight = layer.weights(x, y, None, keep)[0]
    agreement(weight, torch.zeros_like(weight), "its weight", "它的权重")


@check(en="Padding of the image changes nothing", zh="图像的填充不影响结果")
def padding(attempt, draw):
    layer, x, y = drawn_pair(attempt, draw)
    S, n = y.shape[1], draw.size("positions of padding", 1, 2)
    filler = draw.choice("padding", [100.0, math.inf, math.nan])
    padded = torch.cat([y, torch.full_like(y[:, :1], filler).expand(-1, n, -1)], dim=1)
    keep = (torch.arange(S + n) < S).expand(2, S + n)
    agreement(layer(x, padded, None, keep), layer(x, y), "the output", "输出")


@check(en="NaN in padding reaches no gradient", zh="填充里的 NaN 不进入梯度")
def clean(attempt, draw):
    layer, x, y = drawn_pair(attempt, draw)
    x, y = (torch.cat([z, torch.full_like(z[:, :1], math.nan)], dim=1) for z in (x, y))
    x_keep, y_keep = ((z == z).all(-1) for z in (x, y))
    layer(x, y, x_keep, y_keep)[:, :-1].square().sum().backward()
    for name, one in layer.named_parameters():
        if one.grad is None or not one.grad.isfinite().all():
            raise Broken(
                f"the gradient of {name} is missing or not finite",
                f"{name} 的梯度缺失或不是有限值",
            )


@check(en="Samples do not mix", zh="样本之间互不影响")
def samples(attempt, draw):
    layer, x, y = drawn_pair(attempt, draw)
    batch_independence(lambda x: layer(x, y[:1].repeat(len(x), 1, 1)), x, draw)
    batch_independence(lambda y: layer(x[:1].repeat(len(y), 1, 1), y), y, draw)


@check(en="The order of the patches does not matter", zh="图像块的次序不影响结果")
def patches_are_a_set(attempt, draw):
    layer, x, y = drawn_pair(attempt, draw)
    agreement(layer(x, y.flip(1)), layer(x, y), "the output", "输出")


@check(
    en="Weights equal those of nn.MultiheadAttention",
    zh="权重等于 nn.MultiheadAttention 的",
)
def shares(attempt, draw):
    layer, x, y = drawn_pair(attempt, draw)
    keep = draw.mask(2, y.shape[1])
    keep[:, 0] = True
    _, expected = torch_twin(layer, x, y, keep)
    agreement(layer.weights(x, y, None, keep), expected, "the weight", "权重")


@check(en="The image is read, not processed", zh="只读图像，不处理图像")
def work(attempt, draw):
    D, size, M, T, S = 8, 12, 16, 4, 32
    layer = attempt.CrossModalAttention(D, size, M, 4)
    x, y = torch.randn(1, T, D), torch.randn(1, S, size)
    came = count_flops(lambda: layer(x, y))
    enough = 4 * M * (T * S + T * D + S * size)
    if came > enough:
        raise Broken(
            f"{came} FLOPs, {enough} are enough", f"用了 {came} FLOPs，{enough} 就够"
        )


@check(
    en="Gradients reach both sides, every weight and the gate",
    zh="两侧、每个权重和门都有梯度",
)
def gradients(attempt, draw):
    torch.manual_seed(0)
    layer = attempt.CrossModalAttention(3, 4, 4, 2).double()
    nn.init.constant_(layer.gate, 0.5)
    gradient_flow(layer, draw.normal(2, 3, 3), draw.normal(2, 4, 4))


@check(
    en="Adds tanh(gate) times what PyTorch reads",
    zh="加上 tanh(gate) 乘 PyTorch 读到的",
)
def pytorch(attempt, draw):
    gate = draw.choice("gate", [0.5, -1.0, 2.0])
    layer, x, y = drawn_pair(attempt, draw, gate)
    keep = draw.mask(2, y.shape[1])
    keep[:, 0] = True
    read, _ = torch_twin(layer, x, y, keep)
    expected = x + math.tanh(gate) * read
    agreement(layer(x, y, None, keep), expected, "the output", "输出")


@check(
    en="Both directions read what the other was before",
    zh="两个方向读的都是对方更新之前的样子",
)
def both(attempt, draw):
    H = draw.size("heads", 1, 2)
    torch.manual_seed(0)
    layer = attempt.CoAttention(3, 4, 2 * H, H).double()
    x, y = draw.normal(2, 3, 3), draw.normal(2, draw.size("S", 1, 4), 4)
    x_keep = torch.tensor([[True, True, False], [True, True, True]])
    y_keep = draw.mask(2, y.shape[1])
    y_keep[:, 0] = True
    for one in (layer.x_reads, layer.y_reads):
        nn.init.constant_(one.gate, 1.0)
    came = layer(x, y, x_keep, y_keep)
    x_read, _ = torch_twin(layer.x_reads, x, y, y_keep)
    y_read, _ = torch_twin(layer.y_reads, y, x, x_keep)
    real = x_keep.unsqueeze(-1)
    agreement(came[0] * real, (x + math.tanh(1) * x_read) * real, "the new x", "新的 x")
    real = y_keep.unsqueeze(-1)
    agreement(came[1] * real, (y + math.tanh(1) * y_read) * real, "the new y", "新的 y")


@check(en="Inputs stay as they were", zh="不改动输入")
def unmutated(attempt, draw):
    layer, x, y = drawn_pair(attempt, draw)
    x_keep, y_keep = draw.mask(*x.shape[:2]), draw.mask(*y.shape[:2])
    no_input_mutated(lambda x, y: layer(x, y, x_keep, y_keep), x, y)


CHECKS = [
    closed,
    missing,
    padding,
    clean,
    samples,
    patches_are_a_set,
    shares,
    unmutated,
    work,
    gradients,
    pytorch,
    both,
]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    torch.manual_seed(0)
    layer = attempt.CrossModalAttention(64, 96, 64, 4)
    x, y = torch.randn(4, 32, 64), torch.randn(4, 512, 96)
    return lambda: layer(x, y)


# --8<-- [end:checks]
