"""Exercise: logit soft-capping."""

from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import (
    agreement,
    causality,
    convexity,
    gradient_flow,
    no_input_mutated,
)

# isort: split
# --8<-- [start:checks]
import math

import torch


def some_qkv(draw: Draw, T: int, S: int):
    """Draw queries, keys and values of two heads."""
    return draw.normal(1, 2, T, 4), draw.normal(1, 2, S, 4), draw.normal(1, 2, S, 3)


@check(
    en="Small scores pass unchanged, large ones stop at the cap",
    zh="小得分原样通过，大得分停在上限",
)
def range_of_cap(attempt, draw: Draw):
    """Look at soft_cap alone, far inside and far outside the cap."""
    cap = draw.choice("cap", [1.0, 5.0, 50.0])
    unit = draw.normal(6).clamp(-3, 3)
    small = unit * cap / 1e5
    agreement(attempt.soft_cap(small, cap), small, "a small score", "小得分")
    large = unit.sign() * cap * 100
    ends = unit.sign() * cap
    agreement(attempt.soft_cap(large, cap), ends, "a large score", "大得分")


@check(
    en="Around the cap scores keep their order and a slope",
    zh="上限附近仍保持大小顺序，斜率不为零",
)
def smooth(attempt, draw: Draw):
    """A hard limit has a corner; the slope of a soft one falls little by little."""
    cap = draw.choice("cap", [1.0, 5.0, 50.0])
    x = (torch.linspace(-3, 3, 13, dtype=torch.float64) * cap).requires_grad_()
    y = attempt.soft_cap(x, cap)
    (slope,) = torch.autograd.grad(y.sum(), x)
    if not (slope > 0).all():
        raise Broken(
            "at some score within 3 caps the gradient is zero: that one cannot learn",
            "三倍上限以内有得分的梯度为零：它学不到东西",
        )
    agreement(slope, 1 - torch.tanh(x.detach() / cap) ** 2, "the slope", "斜率")


@check(en="Hidden keys change nothing", zh="被遮住的键不起作用")
def hidden(attempt, draw: Draw):
    """Replace what is behind the mask, under a small cap."""
    S = draw.size("S", 2, 6)
    cap = draw.choice("cap", [1.0, 5.0])
    q, k, v = some_qkv(draw, 3, S)
    mask = torch.ones(1, 2, 3, S, dtype=torch.bool)
    mask[..., S - 1] = False
    before = attempt.attend_capped(q, k, v, cap, mask)
    k[:, :, S - 1], v[:, :, S - 1] = 3.0, 100.0
    after = attempt.attend_capped(q, k, v, cap, mask)
    agreement(
        after, before, "with other hidden keys, the output", "换掉被遮住的键后，输出"
    )
    k[:, :, S - 1] = v[:, :, S - 1] = math.nan
    after = attempt.attend_capped(q, k, v, cap, mask)
    agreement(
        after, before, "with NaN behind the mask, the output", "掩码后面是 NaN 时，输出"
    )


@check(en="The future changes nothing", zh="后面的输入不影响前面的输出")
def past_only(attempt, draw: Draw):
    """Run the kit's causality under a causal mask."""
    T = draw.size("T", 2, 6)
    mask = torch.ones(1, 2, T, T, dtype=torch.bool).tril()
    x = draw.normal(1, 2, T, 4)
    causality(lambda x: attempt.attend_capped(x, x, x, 1.0, mask), x, draw, axis=2)


@check(en="Outputs are averages of values", zh="输出是值的加权平均")
def averages(attempt, draw: Draw):
    """Weights sum to one, and a query that sees nothing gets zeros."""
    S = draw.size("S", 2, 6)
    q, k, v = some_qkv(draw, 3, S)
    convexity(lambda v: attempt.attend_capped(q, k, v, 1.0), v, draw)
    mask = torch.ones(1, 2, 3, S, dtype=torch.bool)
    mask[:, :, 1] = False
    blind = attempt.attend_capped(q, k, v, 1.0, mask)[:, :, 1]
    agreement(blind, torch.zeros_like(blind), "a query without keys", "看不到键的查询")


@check(
    en="Two weights of a row differ by a factor of e^(2·cap) at most",
    zh="同一行的两个权重至多相差 e^(2·cap) 倍",
)
def floor(attempt, draw: Draw):
    """Values that are the identity make the output show the weights."""
    S = draw.size("S", 2, 6)
    cap = draw.choice("cap", [0.5, 2.0])
    q, k, _ = some_qkv(draw, 3, S)
    eye = torch.eye(S, dtype=torch.float64).expand(1, 2, S, S)
    weight = attempt.attend_capped(20 * q, 20 * k, eye, cap)
    ratio = (weight.amax(-1) / weight.amin(-1)).max().item()
    if not ratio <= math.exp(2 * cap) * (1 + 1e-9):
        raise Broken(
            f"the weights of a row differ by a factor of {ratio:.3g}",
            f"同一行的权重相差 {ratio:.3g} 倍",
        )


@check(
    en="Gradients reach everything, inputs stay as they were",
    zh="梯度处处可达，输入不被改动",
)
def gradients(attempt, draw: Draw):
    """Finite gradients at queries, keys and values, no change in place."""
    mask = torch.ones(1, 2, 3, 4, dtype=torch.bool).tril()
    inputs = some_qkv(draw, 3, 4)
    gradient_flow(lambda q, k, v: attempt.attend_capped(q, k, v, 2.0, mask), *inputs)
    no_input_mutated(lambda q, k, v: attempt.attend_capped(q, k, v, 2.0, mask), *inputs)


@check(en="Agrees with plain loops over numbers", zh="与逐个数字的循环一致")
def oracle(attempt, draw: Draw):
    """Use Python's own numbers, one query after another; √K is 2."""
    T, S = draw.size("T", 1, 4), draw.size("S", 1, 4)
    cap = draw.choice("cap", [0.5, 2.0, 50.0])
    q, k, v = some_qkv(draw, T, S)
    expected = torch.zeros(1, 2, T, 3, dtype=torch.float64)
    for h in range(2):
        for t in range(T):
            dots = [q[0, h, t].dot(k[0, h, s]).item() for s in range(S)]
            parts = [math.exp(cap * math.tanh(dot / 2 / cap)) for dot in dots]
            for s in range(S):
                expected[0, h, t] += parts[s] / sum(parts) * v[0, h, s]
    agreement(attempt.attend_capped(q, k, v, cap), expected, "the output", "输出")


CHECKS = [
    range_of_cap,
    smooth,
    hidden,
    past_only,
    averages,
    floor,
    gradients,
    oracle,
]


def workload(attempt):
    """Return a call whose time and peak memory are compared with the reference's."""
    x = torch.randn(1, 4, 512, 32)
    return lambda: attempt.attend_capped(x, x, x, 50.0)


# --8<-- [end:checks]
