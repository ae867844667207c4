"""Exercise: gated attention."""

from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import (
    agreement,
    batch_independence,
    causality,
    gradient_flow,
    no_input_mutated,
    registered_parameters,
)

# isort: split
# --8<-- [start:checks]
import math

import torch
import torch.nn.functional as F


def from_parts(layer, x, opened=None):
    """Build the layer head by head; `opened` replaces the gates by a number."""
    H, R, K = layer.heads, layer.gates, layer.to_k.out_features // layer.heads
    outs = []
    for h in range(H):
        rows = layer.to_q_and_gate.weight[h * (K + R) : (h + 1) * (K + R)]
        own = slice(h * K, (h + 1) * K)
        q, k = F.linear(x, rows[:K]), F.linear(x, layer.to_k.weight[own])
        v, gate = F.linear(x, layer.to_v.weight[own]), F.linear(x, rows[K:]).sigmoid()
        out = F.scaled_dot_product_attention(q, k, v)
        outs.append(out * (gate if opened is None else opened))
    return F.linear(torch.cat(outs, -1), layer.to_out.weight)


def layer_and_input(attempt, draw: Draw, T: int):
    """Draw one gate a head or one a dimension; feature 0 of the input is always 1."""
    layer = attempt.GatedAttention(8, 2, draw.choice("gates a head", [1, 4])).double()
    x = draw.normal(2, T, 8)
    x[..., 0] = 1
    return layer, x


def gate_rows(layer):
    """Return the rows of the packed weight that make the gates, head by head."""
    return layer.to_q_and_gate.weight.data.unflatten(0, (2, -1))[:, -layer.gates :]


@check(en="Queries and gates are cut head by head", zh="查询与门控逐头切开")
def layout(attempt, draw: Draw):
    """[q0 | g0 | q1 | g1 …], the gates last within each head."""
    H, K = draw.size("H", 1, 3), draw.size("K", 1, 3)
    R = draw.choice("gates a head", [1, K])
    packed = draw.normal(2, 3, H * (K + R))
    q, gate = attempt.split_packed(packed, H, R)
    for h in range(H):
        start = h * (K + R)
        mine = packed[..., start : start + K]
        agreement(q[:, h], mine, f"the queries of head {h}", f"头 {h} 的查询")
        mine = packed[..., start + K : start + K + R]
        agreement(gate[:, h], mine, f"the gates of head {h}", f"头 {h} 的门控")


@check(en="Gate logits of 0 halve the output", zh="门控的输入为 0 时，输出减半")
def half(attempt, draw: Draw):
    """With the gates' rows at zero nothing but the factor 1/2 is left."""
    layer, x = layer_and_input(attempt, draw, draw.size("T", 1, 4))
    gate_rows(layer).zero_()
    agreement(layer(x), from_parts(layer, x, 0.5), "the output", "输出")


@check(
    en="Open gates change nothing, closed gates end the output",
    zh="门全开等于没有门，门全关输出为零",
)
def extremes(attempt, draw: Draw):
    """Use the constant feature as a bias of ±60, beyond which gates cannot go."""
    layer, x = layer_and_input(attempt, draw, draw.size("T", 1, 4))
    for bias, opened in ((60.0, 1.0), (-60.0, 0.0)):
        gate_rows(layer).zero_()
        gate_rows(layer)[..., 0] = bias
        agreement(
            layer(x),
            from_parts(layer, x, opened),
            f"with gate logits of {bias:.0f} the output",
            f"门控的输入为 {bias:.0f} 时，输出",
        )


@check(
    en="The gate belongs to the query, not to what it looks at",
    zh="门控由查询一方决定，与它看到的内容无关",
)
def own_input(attempt, draw: Draw):
    """A position that closes its gates is silent; the others still hear of it."""
    T = draw.size("T", 2, 5)
    layer, x = layer_and_input(attempt, draw, T)
    shut = draw.size("position with closed gates", 0, T - 1)
    gate_rows(layer).zero_()
    gate_rows(layer)[..., 1] = 60.0
    x[..., 1] = 1.0
    x[:, shut, 1] = -1.0
    out = layer(x)
    silent = out[:, shut]
    agreement(
        silent, torch.zeros_like(silent), "the output of that position", "该位置的输出"
    )
    rest = [t for t in range(T) if t != shut]
    expected = from_parts(layer, x, 1.0)[:, rest]
    agreement(out[:, rest], expected, "the output of the others", "其余位置的输出")


@check(en="Each head has its own gates", zh="每个头有自己的门控")
def own_gates(attempt, draw: Draw):
    """Close the gates of one head; its columns vanish, the others stay."""
    layer, x = layer_and_input(attempt, draw, draw.size("T", 1, 4))
    shut = draw.size("head with closed gates", 0, 1)
    with torch.no_grad():
        layer.to_out.weight.copy_(torch.eye(8))
    gate_rows(layer).zero_()
    gate_rows(layer)[..., 0] = 60.0
    gate_rows(layer)[shut, :, 0] = -60.0
    expected = from_parts(layer, x, 1.0)
    expected[..., 4 * shut : 4 * shut + 4] = 0
    agreement(layer(x), expected, "the output", "输出")


@check(en="Padding may hold anything", zh="填充里放什么都行")
def padding(attempt, draw: Draw):
    """Let a blind query have a gate of NaN: it gets zeros, and gradients stay finite."""
    layer, x = layer_and_input(attempt, draw, 4)
    mask = torch.ones(2, 2, 4, 4, dtype=torch.bool)
    mask[..., 3] = mask[..., 3, :] = False
    short = layer(x[:, :3])
    x[:, 3] = math.nan
    out = layer(x.requires_grad_(), mask)
    agreement(
        out[:, :3], short, "with NaN in the padding, the output", "填充是 NaN 时，输出"
    )
    blind = out[:, 3]
    agreement(blind, torch.zeros_like(blind), "a query without keys", "看不到键的查询")
    if not torch.autograd.grad(out.square().sum(), x)[0].isfinite().all():
        raise Broken("a gradient is not finite", "梯度不是有限值")


@check(
    en="It is self-attention: causal, sample by sample, all weights trained",
    zh="它仍是自注意力：因果、样本互不影响、权重都在训练",
)
def sound(attempt, draw: Draw):
    """Properties of any attention layer."""
    T = draw.size("T", 2, 5)
    layer, x = layer_and_input(attempt, draw, T)
    mask = torch.ones(2, 2, T, T, dtype=torch.bool).tril()
    causality(lambda x: layer(x, mask), x, draw)
    batch_independence(layer, x, draw)
    no_input_mutated(layer, x)
    registered_parameters(layer)
    gradient_flow(layer, x)


@check(
    en="Agrees with F.linear, SDPA and a sigmoid",
    zh="与 F.linear、SDPA 加 sigmoid 一致",
)
def oracle(attempt, draw: Draw):
    """The layer from PyTorch's own parts, with its weights."""
    layer, x = layer_and_input(attempt, draw, draw.size("T", 1, 5))
    agreement(layer(x), from_parts(layer, x), "the output", "输出")


CHECKS = [layout, half, extremes, own_input, own_gates, padding, sound, oracle]


def workload(attempt):
    """Return a call whose time and peak memory are compared with the reference's."""
    layer, x = attempt.GatedAttention(128, 4, 32), torch.randn(1, 512, 128)
    return lambda: layer(x)


# --8<-- [end:checks]
