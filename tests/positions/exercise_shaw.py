"""Exercise: Shaw's relative positions."""

from snippets.properties.cost import largest_bytes
from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import agreement, cached_equals_full

# isort: split
# --8<-- [start:checks]
import math

import torch
import torch.nn.functional as F


def inputs(draw: Draw, T: int, S: int, clip: int):
    """Return queries, keys, values and both tables: one sample, two heads."""
    shapes = (1, 2, T, 4), (1, 2, S, 4), (1, 2, S, 3), (2 * clip + 1, 4)
    return [*(draw.normal(*shape) for shape in shapes), draw.normal(2 * clip + 1, 3)]


@check(en="Each pair finds the row of its distance", zh="每对位置找到自己距离的那一行")
def rows(attempt, draw: Draw):
    """Clipped on both sides; the queries are the last, or begin at `start`."""
    T, S = draw.size("T", 1, 5), draw.size("S", 1, 5)
    clip, start = draw.size("clip", 0, 4), draw.choice("start", [None, 0, 2])
    first = S - T if start is None else start
    expected = [
        [max(-clip, min(clip, s - first - t)) + clip for s in range(S)]
        for t in range(T)
    ]
    found = attempt.distance_rows(T, S, clip, start)
    agreement(found, torch.tensor(expected), en="the table of rows", zh="行号表")


@check(en="Zero tables leave plain attention", zh="表为零就是普通注意力")
def plain(attempt, draw: Draw):
    """Then it equals PyTorch's kernel."""
    q, k, v, ak, av = inputs(draw, draw.size("T", 1, 4), draw.size("S", 1, 4), 1)
    out = attempt.relative_attend(q, k, v, ak * 0, av * 0)
    expected = F.scaled_dot_product_attention(q, k, v)
    agreement(out, expected, en="the output", zh="输出")


@check(en="A cache changes nothing", zh="有没有缓存结果一样")
def cached(attempt, draw: Draw):
    """Pieces against all keys so far equal the full causal pass."""
    ak, av = draw.normal(5, 4), draw.normal(5, 4)

    def attend(x, y):
        x, y = x[:, None], y[:, None]
        T, S = x.shape[2], y.shape[2]
        mask = torch.ones(1, 1, T, S, dtype=torch.bool).tril(S - T)
        return attempt.relative_attend(x, y, y, ak, av, mask)[:, 0]

    def step(piece, cache):
        cache = piece if cache is None else torch.cat([cache, piece], 1)
        return attend(piece, cache), cache

    x = draw.normal(1, draw.size("T", 1, 6), 4)
    cached_equals_full(lambda x: attend(x, x), step, x, draw)


@check(en="Beyond the clip the order is lost", zh="超出截断距离就不分先后")
def far(attempt, draw: Draw):
    """Keys that share a distance may be permuted."""
    S, clip = draw.size("S", 4, 7), draw.size("clip", 1, 2)
    q, k, v, ak, av = inputs(draw, 1, S, clip)
    order = torch.cat([torch.arange(S - clip).flip(0), torch.arange(S - clip, S)])
    agreement(
        attempt.relative_attend(q, k[:, :, order], v[:, :, order], ak, av),
        attempt.relative_attend(q, k, v, ak, av),
        en="with far keys reversed the output",
        zh="远处的键倒序后，输出",
    )


@check(en="A query without keys gives zeros", zh="没有键可看的查询输出零")
def blind(attempt, draw: Draw):
    """Neither values nor relative values come through, and no NaN."""
    T = draw.size("T", 1, 3)
    q, k, v, ak, av = inputs(draw, T, 4, 1)
    mask = torch.ones(1, 2, T, 4, dtype=torch.bool)
    mask[:, :, -1] = False
    last = attempt.relative_attend(q, k, v, ak, av, mask)[:, :, -1]
    agreement(last, torch.zeros_like(last), en="its output", zh="它的输出")


@check(en="Masked keys may hold NaN", zh="被挡住的键可以是 NaN")
def poison(attempt, draw: Draw):
    """Padding equals no padding."""
    T, S = draw.size("T", 1, 3), draw.size("S", 1, 4)
    q, k, v, ak, av = inputs(draw, T, S + 1, 1)
    k[:, :, S], v[:, :, S] = math.nan, draw.choice("value", [math.nan, math.inf])
    mask = torch.ones(1, 2, T, S + 1, dtype=torch.bool)
    mask[..., S] = False
    agreement(
        attempt.relative_attend(q, k, v, ak, av, mask, start=0),
        attempt.relative_attend(q, k[:, :, :S], v[:, :, :S], ak, av, start=0),
        en="the output with padding",
        zh="有填充时的输出",
    )


@check(en="Equations 3 and 4 of the paper", zh="论文的式 3 和式 4")
def loops(attempt, draw: Draw):
    """One query and one head at a time, in float64."""
    T, S, clip = draw.size("T", 1, 3), draw.size("S", 1, 5), draw.size("clip", 0, 3)
    q, k, v, ak, av = inputs(draw, T, S, clip)
    expected = torch.zeros(1, 2, T, 3, dtype=torch.float64)
    for h in range(2):
        for t in range(T):
            at = [max(-clip, min(clip, s - (S - T) - t)) + clip for s in range(S)]
            score = (k[0, h] + ak[at]) @ q[0, h, t] / math.sqrt(4)
            expected[0, h, t] = score.softmax(0) @ (v[0, h] + av[at])
    found = attempt.relative_attend(q, k, v, ak, av)
    agreement(found, expected, en="the output", zh="输出")


@check(en="No vector for each pair of positions", zh="不为每对位置造一个向量")
def work(attempt, draw: Draw):
    """The largest tensor is as large as the scores, not K times that."""
    T = 16 * draw.size("T / 16", 1, 3)
    x, a = draw.normal(1, 1, T, 32), draw.normal(5, 32)
    made = largest_bytes(lambda: attempt.relative_attend(x, x, x, a, a))
    most = 8 * T * max(T, 32)
    if made > most:
        raise Broken(
            f"a tensor of {made} bytes, the scores have {8 * T * T}",
            f"造出了 {made} 字节的张量，而得分只有 {8 * T * T} 字节",
        )


CHECKS = [rows, plain, cached, far, blind, poison, loops, work]


def workload(attempt):
    """Return a call whose time and peak memory are compared with the reference's."""
    x, a = torch.randn(1, 4, 384, 64), torch.randn(33, 64)
    return lambda: attempt.relative_attend(x, x, x, a, a)


# --8<-- [end:checks]
