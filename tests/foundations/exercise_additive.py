"""Exercise: additive attention."""

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


def drawn_layer(attempt, draw):
    """Return the attempt's layer in float64, and queries, keys, values for it."""
    torch.manual_seed(0)
    layer = attempt.AdditiveAttention(3, 4, 5).double()
    T, S = draw.size("T", 1, 4), draw.size("S", 1, 5)
    return layer, draw.normal(2, T, 3), draw.normal(2, S, 4), draw.normal(2, S, 2)


def pair_by_pair(layer, q, k):
    """Return the scores, one pair of a query and a key at a time."""
    return torch.stack(
        [
            torch.stack(
                [
                    (layer.energy.weight[0] * (W + U + layer.key.bias).tanh()).sum()
                    for U in keys
                ]
            )
            for queries, keys in zip(
                q @ layer.query.weight.mT, k @ layer.key.weight.mT, strict=True
            )
            for W in queries
        ]
    ).view(*q.shape[:2], k.shape[1])


@check(en="A score is w·tanh(W q + U k + b)", zh="得分就是 w·tanh(W q + U k + b)")
def pairs(attempt, draw):
    layer, q, k, _ = drawn_layer(attempt, draw)
    agreement(layer.score(q, k), pair_by_pair(layer, q, k), "the score", "得分")


@check(en="Weights of a query sum to one", zh="一个查询的权重之和为一")
def sums(attempt, draw):
    layer, q, k, v = drawn_layer(attempt, draw)
    mask = draw.mask(2, q.shape[1], k.shape[1])
    mask[..., 0] = True
    _, weight = layer(q, k, v, mask)
    one = torch.ones(q.shape[:2]).to(q)
    agreement(weight.sum(-1), one, "the sum of the weights", "权重之和")


@check(en="Padding changes nothing", zh="填充不影响结果")
def padding(attempt, draw):
    layer, q, k, v = drawn_layer(attempt, draw)
    T, S = q.shape[1], k.shape[1]
    n = draw.size("length without padding", 1, S)
    mask = (torch.arange(S) < n).expand(2, T, S)
    filler = draw.choice("padding", [100.0, math.inf, math.nan])
    k, v = (x.masked_fill(~mask[:, 0].unsqueeze(-1), filler) for x in (k, v))
    out, _ = layer(q, k, v, mask)
    short, _ = layer(q, k[:, :n], v[:, :n], mask[..., :n])
    agreement(out, short, "the output", "输出")


@check(en="A query that sees no key gets zeros", zh="看不到任何键的查询得到零")
def blind(attempt, draw):
    layer, q, k, v = drawn_layer(attempt, draw)
    mask = torch.ones(2, q.shape[1], k.shape[1], dtype=torch.bool)
    mask[:, -1] = False
    out, weight = layer(q, k, v, mask)
    agreement(out[:, -1], 0 * out[:, -1].nan_to_num(), "its output", "它的输出")
    agreement(weight[:, -1], 0 * weight[:, -1].nan_to_num(), "its weight", "它的权重")


@check(en="NaN behind the mask reaches no gradient", zh="掩码后面的 NaN 不进入梯度")
def clean(attempt, draw):
    layer, q, k, v = drawn_layer(attempt, draw)
    q, k, v = (
        torch.cat([x, torch.full_like(x[:, :1], math.nan)], 1) for x in (q, k, v)
    )
    mask = torch.ones(2, q.shape[1], k.shape[1], dtype=torch.bool)
    mask[:, -1] = mask[..., -1] = False
    layer(q, k, v, mask)[0].square().sum().backward()
    for name, one in layer.named_parameters():
        if one.grad is None or not one.grad.isfinite().all():
            raise Broken(
                f"the gradient of {name} is missing or not finite",
                f"{name} 的梯度缺失或不是有限值",
            )


@check(en="Samples do not mix", zh="样本之间互不影响")
def samples(attempt, draw):
    layer, q, k, v = drawn_layer(attempt, draw)
    three = torch.cat([x.flatten(1) for x in (q, k, v)], dim=1)
    sizes = [x[0].numel() for x in (q, k, v)]

    def f(three):
        parts = zip(three.split(sizes, dim=1), (q, k, v), strict=True)
        return layer(*(x.unflatten(1, like.shape[1:]) for x, like in parts))[0]

    batch_independence(f, three, draw)


@check(en="Each query and key is projected once", zh="每个查询和键只投影一次")
def work(attempt, draw):
    layer = attempt.AdditiveAttention(16, 16, 2)
    q, k = torch.randn(1, 8, 16), torch.randn(1, 8, 16)
    came, enough = count_flops(lambda: layer.score(q, k)), 2 * 2 * (16 * 16 + 8 * 8)
    if came > enough:
        raise Broken(
            f"{came} FLOPs, {enough} are enough", f"用了 {came} FLOPs，{enough} 就够"
        )


@check(en="Gradients reach inputs and weights", zh="输入和每个权重都有梯度")
def gradients(attempt, draw):
    layer, q, k, v = drawn_layer(attempt, draw)
    q, k, v = q[:, :1], draw.normal(2, 3, 4), draw.normal(2, 3, 2)

    class First(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, *three):
            return self.layer(*three)[0]

    gradient_flow(First(), q, k, v)


@check(en="Inputs stay as they were", zh="不改动输入")
def unmutated(attempt, draw):
    layer, q, k, v = drawn_layer(attempt, draw)
    mask = draw.mask(2, q.shape[1], k.shape[1])
    mask[:, :, 0] = mask[:, 0] = False
    no_input_mutated(lambda *three: layer(*three, mask), q, k, v)


@check(en="Equals the definition, pair by pair", zh="等于逐对计算的定义")
def definition(attempt, draw):
    layer, q, k, v = drawn_layer(attempt, draw)
    mask = draw.mask(2, q.shape[1], k.shape[1])
    mask[..., -1] = True
    share = pair_by_pair(layer, q, k).exp() * mask
    share = share / share.sum(-1, keepdim=True)
    expected = torch.stack([a @ b for a, b in zip(share, v, strict=True)])
    out, weight = layer(q, k, v, mask)
    agreement(weight, share, "the weight", "权重")
    agreement(out, expected, "the output", "输出")


CHECKS = [
    pairs,
    sums,
    padding,
    blind,
    clean,
    samples,
    work,
    gradients,
    unmutated,
    definition,
]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    torch.manual_seed(0)
    layer, x = attempt.AdditiveAttention(64, 64, 64), torch.randn(4, 128, 64)
    return lambda: layer(x, x, x)


# --8<-- [end:checks]
