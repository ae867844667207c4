"""Exercise: attention with linear biases."""

from snippets.properties.cost import count_flops
from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import agreement, allowed, causality, gap

# isort: split
# --8<-- [start:checks]
import math

import torch
import torch.nn.functional as F


def rule(H):
    """The slopes by recursion, as Python floats."""
    n = 1
    while 2 * n <= H:
        n *= 2
    start = [2 ** (-8 * (h + 1) / n) for h in range(n)]
    return start if n == H else start + rule(2 * n)[::2][: H - n]


def penalty(H, T, S):
    """Minus slope times distance, by indices; float64."""
    device = torch.get_default_device()
    away = torch.arange(S - T, S, device=device)[:, None] - torch.arange(
        S, device=device
    )
    slope = torch.tensor(rule(H), dtype=torch.float64, device=device)
    return -slope[:, None, None] * away


def biased(q, k, v, keep=None):
    """PyTorch's SDPA in float64 with the penalty as a mask."""
    B, H, T, S = *q.shape[:3], k.shape[2]
    mask = penalty(H, T, S)
    mask = mask.masked_fill(mask > 0, -math.inf).expand(B, H, T, S)
    if keep is not None:
        mask = mask.masked_fill(~keep[:, None, None], -math.inf)
    return F.scaled_dot_product_attention(q.double(), k.double(), v.double(), mask)


@check(en="Slopes for 1, 2, 4, 8, … heads", zh="头数是 2 的幂时的斜率")
def powers(attempt, draw: Draw):
    """Geometric from 2^(-8/n) to 2^-8."""
    H = draw.choice("heads", [1, 2, 4, 8, 16])
    agreement(attempt.slopes(H).double().log2(), penalty(H, 1, 2)[:, 0, 0].neg().log2(),
              "log2 of the slope", "斜率的 log2")  # fmt: skip


@check(en="Slopes for other numbers of heads", zh="其他头数的斜率")
def others(attempt, draw: Draw):
    """Every other slope of twice as many heads, from the first."""
    H = draw.choice("heads", [3, 5, 6, 7, 12, 20, 40])
    agreement(attempt.slopes(H).double().log2(), penalty(H, 1, 2)[:, 0, 0].neg().log2(),
              "log2 of the slope", "斜率的 log2")  # fmt: skip


@check(en="The bias is minus slope times distance", zh="偏置等于负的斜率乘距离")
def distances(attempt, draw: Draw):
    """Nearest keys get 0 and the oldest the least; queries are the last positions."""
    H, T, more = draw.size("H", 1, 5), draw.size("T", 1, 4), draw.size("S - T", 0, 4)
    expected = penalty(H, T, T + more)
    slope = expected.new_tensor(rule(H))
    came = attempt.alibi_bias(slope, T, T + more).double()
    if came.shape != expected.shape:
        agreement(came, expected, "the bias", "偏置")
    past = expected <= 0
    agreement(came[past], expected[past], "the bias towards the past", "对过去的偏置")


@check(en="The future changes nothing", zh="后面的输入不影响前面的输出")
def future(attempt, draw: Draw):
    """Causal."""
    B, T = draw.size("B", 1, 2), draw.size("T", 1, 5)
    x = draw.normal(B, T, 3, 2, 4)
    causality(
        lambda x: attempt.alibi_attention(*x.movedim(1, 3).unbind(1)).transpose(1, 2),
        x,
        draw,
    )


@check(en="Decoding with a cache equals the full pass", zh="带缓存解码等于一次算完")
def decoded(attempt, draw: Draw):
    """The last T queries alone."""
    S = draw.size("S", 1, 6)
    T = draw.size("T", 1, S)
    q, k, v = draw.normal(3, 1, 3, S, 4)
    whole = attempt.alibi_attention(q, k, v)[:, :, S - T :]
    agreement(
        attempt.alibi_attention(q[:, :, S - T :], k, v), whole, "the output", "输出"
    )


@check(en="Padding changes nothing, be it NaN", zh="填充不影响结果，哪怕是 NaN")
def padded(attempt, draw: Draw):
    """Left padding equals none; what sees nothing gets zeros."""
    left, T = draw.size("left padding", 0, 3), draw.size("T", 1, 4)
    bad = draw.choice("padding", [9.0, math.nan, math.inf])
    q, k, v = draw.normal(3, 1, 3, left + T, 4)
    short = attempt.alibi_attention(q[:, :, left:], k[:, :, left:], v[:, :, left:])
    q[:, :, :left] = k[:, :, :left] = v[:, :, :left] = bad
    keep = torch.arange(left + T)[None] >= left
    out = attempt.alibi_attention(q, k, v, keep)
    agreement(out[:, :, left:], short, "the output of a token", "词元的输出")
    agreement(
        out[:, :, :left],
        0 * short.new_ones(1, 3, left, 4),
        "that of padding",
        "填充的输出",
    )


@check(en="Half precision keeps neighbors apart", zh="半精度也分得清相邻的键")
def precise(attempt, draw: Draw):
    """Far from the start, where position times slope is large."""
    dtype = draw.choice("dtype", [torch.bfloat16, torch.float16])
    S = draw.choice("S", [600, 900])
    q, k, v = (draw.normal(1, 8, n, 4, dtype=dtype) for n in (1, S, S))
    out = attempt.alibi_attention(q, k, v)
    if out.dtype != dtype:
        raise Broken(
            f"{dtype} came in and {out.dtype} out",
            f"输入是 {dtype}，输出却是 {out.dtype}",
        )
    expected = biased(q, k, v)
    off = gap(out, expected)
    if not off <= allowed(expected.to(dtype)):
        raise Broken(
            f"in {dtype} the output is off by {off:.2g}",
            f"{dtype} 下输出相差 {off:.2g}",
        )


@check(en="The work is that of attention", zh="计算量与普通注意力相同")
def work(attempt, draw: Draw):
    """4 · H · T · S · K FLOPs of matrix products, one query on a cache."""
    H, S = draw.size("H", 1, 4), draw.size("S", 8, 32)
    q, k, v = (draw.normal(1, H, n, 8) for n in (1, S, S))
    spent = count_flops(lambda: attempt.alibi_attention(q, k, v))
    if spent > 4 * H * S * 8:
        times = spent / (4 * H * S * 8)
        raise Broken(
            f"one query on a cache costs {times:.1f} times the needed FLOPs",
            f"一个查询对缓存，用了所需 FLOPs 的 {times:.1f} 倍",
        )


@check(en="Agrees with PyTorch's attention", zh="与 PyTorch 的注意力一致")
def oracle(attempt, draw: Draw):
    """SDPA with the penalty as a mask."""
    B, H, T = draw.size("B", 1, 2), draw.size("H", 1, 6), draw.size("T", 1, 4)
    S = T + draw.size("S - T", 0, 3)
    q, k, v = (draw.normal(B, H, n, 4) for n in (T, S, S))
    out = attempt.alibi_attention(q, k, v)
    agreement(out, biased(q, k, v), "the output", "输出")


CHECKS = [
    powers,
    others,
    distances,
    future,
    decoded,
    padded,
    oracle,
    precise,
    work,
]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    q, k, v = torch.randn(3, 1, 8, 512, 32)
    return lambda: attempt.alibi_attention(q, k, v)


# --8<-- [end:checks]
