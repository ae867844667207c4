"""Exercise: QK-norm."""

from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import (
    agreement,
    causality,
    convexity,
    gradient_flow,
    registered_parameters,
)

# isort: split
# --8<-- [start:checks]
import math

import torch
import torch.nn.functional as F


def layer_of(attempt):
    """Make a layer with scales that are not all ones."""
    layer = attempt.QKNormAttention(8, 2).double()
    with torch.no_grad():
        layer.q_scale_K.copy_(torch.tensor([0.5, 2.0, 1.0, 0.1]))
        layer.k_scale_K.copy_(torch.tensor([1.5, 1.0, 0.2, 3.0]))
    return layer


def turn(x):
    """Rotate pairs of the last axis by an angle that grows with the position."""
    T = x.shape[2]
    speed = torch.tensor([1.0, 0.1], dtype=x.dtype).repeat(2)
    angle = torch.arange(T, dtype=x.dtype).unsqueeze(1) * speed
    low, high = x.chunk(2, dim=-1)
    return x * angle.cos() + torch.cat([-high, low], -1) * angle.sin()


@check(en="The norms give vectors of the right length", zh="归一化后向量的长度正确")
def lengths(attempt, draw: Draw):
    """√K after rms_norm with a scale of ones, 1 after unit_norm, for every vector."""
    T, K = draw.size("T", 2, 4), draw.size("K", 2, 5)
    x = draw.normal(2, T, K) * 1e4
    one = torch.ones(K, dtype=torch.float64)
    length = attempt.rms_norm(x, one).norm(dim=-1)
    agreement(length, torch.full_like(length, K**0.5), "length (rms)", "长度 (rms)")
    length = attempt.unit_norm(x).norm(dim=-1)
    agreement(length, torch.ones_like(length), "length (unit)", "长度 (unit)")


@check(en="The norms equal PyTorch's", zh="归一化与 PyTorch 的一致")
def norms(attempt, draw: Draw):
    """F.rms_norm and F.normalize, with a learned scale and with large half-precision."""
    K = draw.size("K", 1, 5)
    x, scale = draw.normal(3, K), draw.normal(K)
    expected = F.rms_norm(x, (K,), scale, 1e-6)
    agreement(attempt.rms_norm(x, scale), expected, "rms_norm", "rms_norm")
    agreement(attempt.unit_norm(x), F.normalize(x, dim=-1), "unit_norm", "unit_norm")
    large = torch.full((1, 4), 300.0, dtype=torch.float16)
    one = torch.ones_like(large)
    normed = attempt.rms_norm(large, one[0])
    agreement(normed, one, "rms_norm of 300 in float16", "float16 的 300 经 rms_norm")
    zero = attempt.unit_norm(torch.zeros(1, 3, dtype=torch.float64))
    agreement(zero, torch.zeros_like(zero), "unit_norm of zeros", "零向量的 unit_norm")


@check(en="A single key can get almost all the weight", zh="一个键可以拿到几乎全部权重")
def reach(attempt, draw: Draw):
    """With a gain of 10, a query finds the one key of its own direction."""
    S = draw.size("S", 2, 6)
    q = draw.normal(1, 2, 1, 4)
    k = -q.expand(1, 2, S, 4).clone()
    k[:, :, 0] = q[:, :, 0]
    eye = torch.eye(S, dtype=torch.float64).expand(1, 2, S, S)
    gain = torch.tensor([10.0, 1.0], dtype=torch.float64)
    weight = attempt.attend_cosine(q, k, eye, gain)[0, :, 0, 0]
    expected = 1 / (1 + (S - 1) * torch.exp(-2 * gain))
    agreement(weight, expected, "the weight of the best key", "最佳键的权重")


@check(en="The length of queries and keys has no effect", zh="查询和键的长度不起作用")
def length_free(attempt, draw: Draw):
    """Multiply each vector by its own factor; then the projections of the layer."""
    T = draw.size("T", 1, 4)
    q, k, v = (draw.normal(1, 2, T, 4) for _ in range(3))
    gain = draw.normal(2)
    factor = draw.normal(1, 2, T, 1).abs() * 20 + 1
    before = attempt.attend_cosine(q, k, v, gain)
    for name, a, b in (("queries", factor * q, k), ("keys", q, factor * k)):
        after = attempt.attend_cosine(a, b, v, gain)
        zh = {"queries": "拉长查询后，输出", "keys": "拉长键后，输出"}[name]
        agreement(after, before, f"with longer {name} the output", zh)
    layer, x = layer_of(attempt), draw.normal(2, T, 8)
    before = layer(x).detach()
    with torch.no_grad():
        layer.to_q.weight *= 1e3
        layer.to_k.weight *= 1e3
    after = layer(x)
    if not (after - before).abs().max() < 1e-3 * before.abs().max() + 1e-6:
        raise Broken(
            "the layer's output changes when W_Q and W_K are multiplied by 1000",
            "W_Q 和 W_K 乘以 1000 后，层的输出变了",
        )


@check(en="The future changes nothing", zh="后面的输入不影响前面的输出")
def past_only(attempt, draw: Draw):
    """Run the kit's causality under a causal mask."""
    T = draw.size("T", 2, 6)
    mask = torch.ones(1, 2, T, T, dtype=torch.bool).tril()
    layer = layer_of(attempt)
    causality(lambda x: layer(x, mask), draw.normal(1, T, 8), draw)


@check(en="Heads do not touch each other's scores", zh="各头的得分互不影响")
def heads_apart(attempt, draw: Draw):
    """Make head 0's queries louder or quieter: head 1 must not notice."""
    layer, x = layer_of(attempt), draw.normal(1, draw.size("T", 2, 4), 8)
    with torch.no_grad():
        layer.to_out.weight.copy_(torch.eye(8))
        before = layer(x)[..., 4:].clone()
        layer.to_q.weight[:4] = layer.to_q.weight[:4].flip(0) * 50
        after = layer(x)[..., 4:]
    agreement(
        after, before, "with other queries in head 0, head 1", "改动头 0 的查询后，头 1"
    )


@check(en="Hidden positions may hold anything", zh="被遮住的位置放什么都行")
def hidden(attempt, draw: Draw):
    """Let the padding hold NaN: neither outputs nor gradients of scales notice."""
    layer, x = layer_of(attempt), draw.normal(1, 4, 8)
    mask = torch.ones(1, 2, 4, 4, dtype=torch.bool)
    mask[..., 3] = mask[..., 3, :] = False
    short = layer(x[:, :3])
    x[:, 3] = math.nan
    out = layer(x, mask)
    agreement(
        out[:, :3], short, "with NaN in the padding, the output", "填充是 NaN 时，输出"
    )
    grads = torch.autograd.grad(out.square().sum(), [layer.q_scale_K, layer.k_scale_K])
    if not all(grad.isfinite().all() for grad in grads):
        raise Broken(
            "NaN in the padding reaches the gradient of the scales",
            "填充里的 NaN 进入了缩放系数的梯度",
        )


@check(
    en="Outputs average values, gradients reach everything",
    zh="输出是值的平均，梯度处处可达",
)
def sound(attempt, draw: Draw):
    """Convexity, gradients of every parameter, registered weights."""
    q, k, v = (draw.normal(1, 2, 4, 4) for _ in range(3))
    gain = draw.normal(2)
    convexity(lambda v: attempt.attend_cosine(q, k, v, gain), v, draw)
    layer = layer_of(attempt)
    registered_parameters(layer)
    gradient_flow(layer, draw.normal(2, 4, 8))


@check(en="Positions are rotated after the norm", zh="先归一化，再按位置旋转")
def rotated_last(attempt, draw: Draw):
    """With a scale for each dimension the two orders differ; Qwen3 rotates last."""
    layer, x = layer_of(attempt), draw.normal(1, draw.size("T", 2, 5), 8)
    agreement(
        layer(x, rotate=turn), expected_layer(layer, x, turn), "the output", "输出"
    )


@check(en="Agrees with F.rms_norm and SDPA", zh="与 F.rms_norm 加 SDPA 一致")
def oracle(attempt, draw: Draw):
    """The layer from PyTorch's own parts, with its weights; then the function."""
    layer, x = layer_of(attempt), draw.normal(2, draw.size("T", 1, 5), 8)
    agreement(layer(x), expected_layer(layer, x), "the layer's output", "层的输出")
    q, k, v = draw.normal(1, 2, 3, 4), draw.normal(1, 2, 5, 4), draw.normal(1, 2, 5, 3)
    gain = draw.normal(2)
    u, w = F.normalize(q, dim=-1) * gain.view(2, 1, 1), F.normalize(k, dim=-1)
    expected = F.scaled_dot_product_attention(u, w, v, scale=1.0)
    agreement(attempt.attend_cosine(q, k, v, gain), expected, "attend_cosine", "输出")


def expected_layer(layer, x, rotate=lambda x: x):
    """Build the layer's output from PyTorch's own functions."""
    q, k, v = (
        F.linear(x, to.weight).unflatten(-1, (2, 4)).transpose(1, 2)
        for to in (layer.to_q, layer.to_k, layer.to_v)
    )
    q = rotate(F.rms_norm(q, (4,), layer.q_scale_K, 1e-6))
    k = rotate(F.rms_norm(k, (4,), layer.k_scale_K, 1e-6))
    out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    return F.linear(out, layer.to_out.weight)


CHECKS = [
    lengths,
    norms,
    length_free,
    reach,
    past_only,
    heads_apart,
    sound,
    hidden,
    rotated_last,
    oracle,
]


def workload(attempt):
    """Return a call whose time and peak memory are compared with the reference's."""
    layer, x = attempt.QKNormAttention(128, 4), torch.randn(1, 512, 128)
    return lambda: layer(x)


# --8<-- [end:checks]
