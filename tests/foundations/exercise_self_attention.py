"""Exercise: self-attention."""

from snippets.properties.cost import count_flops
from snippets.properties.judge import Broken, check
from snippets.properties.kit import (
    agreement,
    batch_independence,
    causality,
    gradient_flow,
    no_input_mutated,
    permutation_equivariance,
)

# isort: split
# --8<-- [start:checks]
import math

import torch
from torch import nn


def drawn_layer(attempt, draw, T=None, D=4):
    """Return the attempt's layer in float64, and two sequences of T positions."""
    torch.manual_seed(0)
    layer = attempt.SelfAttention(D, draw.size("size of the head", 1, 4)).double()
    return layer, draw.normal(2, T or draw.size("T", 1, 5), D)


@check(en="Every output depends on every input", zh="每个输出都取决于每个输入")
def everyone(attempt, draw):
    layer, x = drawn_layer(attempt, draw, T=draw.size("T", 2, 5))
    to, other = draw.size("output", 0, x.shape[1] - 1), x.clone()
    at = draw.size("input", 0, x.shape[1] - 1)
    other[:, at] += 1
    if not (layer(other) - layer(x))[:, to].abs().amax() > 1e-9:
        raise Broken(
            f"output {to} does not move when input {at} changes",
            f"改动第 {at} 个输入，第 {to} 个输出纹丝不动",
        )


@check(en="Permuting inputs permutes outputs", zh="打乱输入，输出随之打乱")
def order(attempt, draw):
    layer, x = drawn_layer(attempt, draw)
    permutation_equivariance(layer, x, draw)


@check(en="Samples do not mix", zh="样本之间互不影响")
def samples(attempt, draw):
    layer, x = drawn_layer(attempt, draw)
    batch_independence(layer, x, draw)


@check(
    en="Under a causal mask the future changes nothing",
    zh="有因果掩码时，后面的输入不影响前面的输出",
)
def future(attempt, draw):
    T = draw.size("T", 2, 5)
    layer, x = drawn_layer(attempt, draw, T=T)
    causal = torch.ones(2, T, T, dtype=torch.bool).tril()
    causality(lambda x: layer(x, causal), x, draw)


@check(en="What is masked leaks nothing, not even NaN", zh="被遮的位置连 NaN 也不泄漏")
def padding(attempt, draw):
    layer, x = drawn_layer(attempt, draw)
    T, n = x.shape[1], draw.size("positions of padding", 1, 2)
    filler = draw.choice("padding", [100.0, math.inf, math.nan])
    padded = torch.cat([x, torch.full_like(x[:, :1], filler).expand(-1, n, -1)], dim=1)
    mask = (torch.arange(T + n) < T).expand(2, T + n, T + n)
    agreement(layer(padded, mask)[:, :T], layer(x), "the output", "输出")


@check(en="A query that sees no key gets zeros", zh="看不到任何键的查询得到零")
def blind(attempt, draw):
    layer, x = drawn_layer(attempt, draw)
    mask = torch.ones(2, x.shape[1], x.shape[1], dtype=torch.bool)
    mask[:, -1] = False
    out = layer(x, mask)[:, -1]
    agreement(out, torch.zeros_like(out), "its output", "它的输出")


@check(en="Gradients reach all three projections", zh="三个投影都有梯度")
def gradients(attempt, draw):
    layer, x = drawn_layer(attempt, draw, T=4)
    gradient_flow(layer, x)


@check(en="Inputs stay as they were", zh="不改动输入")
def unmutated(attempt, draw):
    layer, x = drawn_layer(attempt, draw)
    mask = draw.mask(2, x.shape[1], x.shape[1])
    no_input_mutated(lambda x: layer(x, mask), x)


@check(en="Each position is projected once", zh="每个位置只投影一次")
def work(attempt, draw):
    T, D = 16, 8
    layer, x = attempt.SelfAttention(D, D), torch.randn(1, T, D)
    came, enough = count_flops(lambda: layer(x)), 6 * T * D * D + 4 * T * T * D
    if came > enough:
        raise Broken(
            f"{came} FLOPs, {enough} are enough", f"用了 {came} FLOPs，{enough} 就够"
        )


@check(en="Equals nn.MultiheadAttention", zh="等于 nn.MultiheadAttention")
def pytorch(attempt, draw):
    D = draw.size("D", 1, 4)
    torch.manual_seed(0)
    layer = attempt.SelfAttention(D, D).double()
    x = draw.normal(2, draw.size("T", 1, 5), D)
    peer = nn.MultiheadAttention(D, 1, bias=False, batch_first=True).double()
    three = (layer.to_q, layer.to_k, layer.to_v)
    with torch.no_grad():
        peer.in_proj_weight.copy_(torch.cat([to.weight for to in three]))
        peer.out_proj.weight.copy_(torch.eye(D))
    mask = draw.mask(2, x.shape[1], x.shape[1])
    mask |= torch.eye(x.shape[1], dtype=torch.bool)
    expected, _ = peer(x, x, x, attn_mask=~mask)
    agreement(layer(x, mask), expected, "the output", "输出")


CHECKS = [
    everyone,
    order,
    samples,
    future,
    padding,
    blind,
    gradients,
    unmutated,
    work,
    pytorch,
]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    torch.manual_seed(0)
    layer, x = attempt.SelfAttention(64, 64), torch.randn(4, 512, 64)
    return lambda: layer(x)


# --8<-- [end:checks]
