"""Exercise: attention sinks."""

from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import (
    agreement,
    causality,
    gradient_flow,
    no_input_mutated,
)

# isort: split
# --8<-- [start:checks]
import math

import torch
import torch.nn.functional as F


def with_extra_key(q, k, v, sink, mask):
    """Let SDPA see one more key, of logit `sink` and with a value of zeros."""
    B, H, T, _ = mask.shape
    k, v = (torch.cat([one, torch.zeros_like(one[:, :, :1])], 2) for one in (k, v))
    bias = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, -math.inf)
    bias = torch.cat([bias, sink.view(1, H, 1, 1).expand(B, H, T, 1)], 3)
    return F.scaled_dot_product_attention(q, k, v, bias)


@check(
    en="A query that finds nothing may give its weight to nobody",
    zh="找不到东西的查询可以谁也不看",
)
def nobody(attempt, draw: Draw):
    """With scores far below the sink all weights vanish, far above they sum to one."""
    S = draw.size("S", 1, 6)
    score = draw.normal(1, 2, 3, S)
    zero = torch.zeros(2, dtype=torch.float64)
    for shift, total in ((-40.0, 0.0), (40.0, 1.0)):
        found = attempt.sink_softmax(score + shift, zero).sum(-1)
        agreement(
            found,
            torch.full_like(found, total),
            f"with scores near {shift:.0f} and a sink of 0 the sum of weights",
            f"得分在 {shift:.0f} 附近、汇聚点为 0 时，权重之和",
        )


@check(en="The sink takes its own share, and no more", zh="汇聚点恰好拿走自己的一份")
def share(attempt, draw: Draw):
    """Weights and the share of the sink sum to one; each head has its own sink."""
    S = draw.size("S", 1, 6)
    score, sink = draw.normal(2, 3, 2, S), draw.normal(3)
    weight = attempt.sink_softmax(score, sink)
    total = torch.logsumexp(score, -1)
    expected = torch.sigmoid(total - sink.view(3, 1))
    agreement(weight.sum(-1), expected, "the sum of weights", "权重之和")
    plain = torch.softmax(score, -1)
    ratio = weight / weight.sum(-1, keepdim=True)
    agreement(ratio, plain, "the ratio of the weights", "权重之间的比例")


@check(en="Huge scores and sinks stay finite", zh="得分和汇聚点再大也不溢出")
def stable(attempt, draw: Draw):
    """±1000 on either side, and the gradients."""
    high = draw.choice("score", [0.0, 1000.0, -1000.0])
    sink = torch.tensor([1000.0, -1000.0], dtype=torch.float64, requires_grad=True)
    score = (draw.normal(1, 2, 2, 3) + high).requires_grad_()
    weight = attempt.sink_softmax(score, sink)
    grads = torch.autograd.grad((weight * draw.normal(1, 2, 2, 3)).sum(), (score, sink))
    if not all(one.isfinite().all() for one in (weight, *grads)):
        raise Broken(
            "with scores or sinks of ±1000 a weight or a gradient is not finite",
            "得分或汇聚点为 ±1000 时，权重或梯度不是有限值",
        )


@check(
    en="A query without keys gets zeros; hidden keys change nothing",
    zh="看不到键的查询得零；被遮住的键不起作用",
)
def hidden(attempt, draw: Draw):
    """Fully masked rows, NaN behind the mask, other keys behind the mask."""
    S = draw.size("S", 2, 5)
    q, k, v = draw.normal(1, 2, 3, 4), draw.normal(1, 2, S, 4), draw.normal(1, 2, S, 3)
    sink, mask = draw.normal(2), torch.ones(1, 2, 3, S, dtype=torch.bool)
    mask[..., S - 1] = mask[..., 1, :] = False
    before = attempt.attend_with_sink(q, k, v, sink, mask)
    agreement(
        before[:, :, 1],
        torch.zeros_like(before[:, :, 1]),
        "a query without keys",
        "看不到键的查询",
    )
    for other in (9.0, math.nan):
        k[:, :, S - 1] = v[:, :, S - 1] = other
        after = attempt.attend_with_sink(q, k, v, sink, mask)
        agreement(
            after,
            before,
            f"with {other} behind the mask, the output",
            f"掩码后面是 {other} 时，输出",
        )


@check(
    en="The window holds the last keys, the first ones stay",
    zh="窗口留住最近的键，开头的键不走",
)
def windows(attempt, draw: Draw):
    """Compare the mask with a sentence, position by position."""
    S = draw.size("S", 1, 8)
    T = draw.size("T", 1, S)
    window, first = draw.size("window", 1, 5), draw.size("first", 0, 3)
    mask = attempt.window_mask(T, S, window, first)
    expected = torch.zeros(T, S, dtype=torch.bool)
    for t in range(T):
        own = S - T + t
        expected[t, max(0, own - window + 1) : own + 1] = True
        expected[t, : min(first, own + 1)] = True
    wrong = (mask != expected).nonzero().tolist()
    if wrong:
        t, s = wrong[0]
        raise Broken(
            f"query {t} of {T} (position {S - T + t}) and key {s}: "
            f"{bool(mask[t, s])}, expected {bool(expected[t, s])}",
            f"{T} 个查询中的第 {t} 个（位置 {S - T + t}）与键 {s}："
            f"{bool(mask[t, s])}，应为 {bool(expected[t, s])}",
        )


@check(
    en="Decoding with eviction equals the full pass", zh="边解码边淘汰，等于一次算完"
)
def rolling(attempt, draw: Draw):
    """Feed one position after another; compare with the window mask on everything."""
    T = draw.size("T", 1, 8)
    window, first = draw.size("window", 1, 3), draw.size("first", 0, 2)
    x, sink = draw.normal(1, 2, T, 4), draw.normal(2)
    position = torch.arange(T)
    near = position.unsqueeze(1) - position < window
    seen = (near | (position < first)) & (position <= position.unsqueeze(1))
    full = with_extra_key(x, x, x, sink, seen.expand(1, 2, T, T))
    cache = x[:, :, :0]
    for t in range(T):
        cache = attempt.evict(torch.cat([cache, x[:, :, t : t + 1]], 2), window, first)
        if cache.shape[2] > first + window:
            raise Broken(
                f"the cache holds {cache.shape[2]} keys, at most {first + window} expected",
                f"缓存里有 {cache.shape[2]} 个键，至多应有 {first + window} 个",
            )
        out = attempt.attend_with_sink(x[:, :, t : t + 1], cache, cache, sink)
        agreement(
            out, full[:, :, t : t + 1], f"the output of step {t}", f"第 {t} 步的输出"
        )


@check(
    en="Gradients reach everything, inputs stay as they were",
    zh="梯度处处可达，输入不被改动",
)
def sound(attempt, draw: Draw):
    """Queries, keys, values and sinks; and the future changes nothing."""
    q, k, v, sink = *(draw.normal(1, 2, 4, 4) for _ in range(3)), draw.normal(2)
    gradient_flow(lambda *inputs: attempt.attend_with_sink(*inputs), q, k, v, sink)
    no_input_mutated(lambda *inputs: attempt.attend_with_sink(*inputs), q, k, v, sink)
    mask = torch.ones(1, 2, 4, 4, dtype=torch.bool).tril()
    causality(lambda x: attempt.attend_with_sink(x, x, x, sink, mask), q, draw, axis=2)


@check(en="Agrees with SDPA and one more key", zh="与多一个键的 SDPA 一致")
def oracle(attempt, draw: Draw):
    """A key of the sink's logit whose value is zero."""
    T, S = draw.size("T", 1, 5), draw.size("S", 1, 5)
    q, k, v = draw.normal(2, 3, T, 4), draw.normal(2, 3, S, 4), draw.normal(2, 3, S, 3)
    sink, mask = draw.normal(3), draw.mask(2, 3, T, S)
    expected = with_extra_key(q, k, v, sink, mask)
    agreement(
        attempt.attend_with_sink(q, k, v, sink, mask), expected, "the output", "输出"
    )


CHECKS = [nobody, share, stable, hidden, windows, rolling, sound, oracle]


def workload(attempt):
    """Return a call whose time and peak memory are compared with the reference's."""
    x, sink = torch.randn(1, 4, 512, 32), torch.zeros(4)
    return lambda: attempt.attend_with_sink(x, x, x, sink)


# --8<-- [end:checks]
