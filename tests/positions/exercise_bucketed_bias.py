"""Exercise: T5's bucketed relative bias."""

from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import agreement, cached_equals_full

# isort: split
# --8<-- [start:checks]
import math

import torch
import torch.nn.functional as F


def expected_bucket(distance: int, count: int, far: int, causal: bool) -> int:
    """Find the bucket with whole numbers only."""
    own = count if causal else count // 2
    size = max(0, -distance) if causal else abs(distance)
    exact = own // 2
    steps, found = own - exact, min(size, exact)
    for n in range(1, steps):
        if size**steps >= exact ** (steps - n) * far**n:
            found = exact + n
    return found + (0 if causal or distance <= 0 else own)


def found_bucket(attempt, distance: int, *layout) -> int:
    """Return the attempt's bucket of one distance."""
    return int(attempt.bucket(torch.tensor([[distance]]), *layout))


@check(en="Near distances have a bucket each", zh="近处每个距离一个桶")
def near(attempt, draw: Draw):
    """Below half of the buckets of a direction nothing is merged."""
    causal = draw.choice("causal", [False, True])
    distance = -draw.size("how far back", 0, 15 if causal else 7)
    found = found_bucket(attempt, distance, 32, 128, causal)
    if found != -distance:
        raise Broken(f"it fell into bucket {found}", f"落进了第 {found} 个桶")


@check(en="Far distances share the last bucket", zh="远处都落进最后一个桶")
def distant(attempt, draw: Draw):
    """Whatever is farther than `far` stays in its own direction."""
    causal = draw.choice("causal", [False, True])
    distance = -draw.size("how far back", 128, 5000)
    found, last = found_bucket(attempt, distance, 32, 128, causal), 31 if causal else 15
    if found != last:
        raise Broken(
            f"it fell into bucket {found}, not {last}", f"落进了第 {found} 个桶"
        )


@check(en="The future has its own half, or none", zh="之后的键自占一半，或一个不占")
def future(attempt, draw: Draw):
    """Both ways: 16 more than the past. Causal: bucket 0."""
    distance, causal = draw.size("how far ahead", 1, 300), draw.choice("causal", [0, 1])
    found = found_bucket(attempt, distance, 32, 128, bool(causal))
    past = found_bucket(attempt, -distance, 32, 128, False)
    expected = 0 if causal else past + 16
    if found != expected:
        raise Broken(
            f"bucket {found}, expected {expected}", f"是 {found}，应为 {expected}"
        )


@check(en="Every layout, without rounding", zh="各种桶数都对，没有舍入误差")
def layouts(attempt, draw: Draw):
    """Also where an edge falls on a whole number."""
    causal = draw.choice("causal", [False, True])
    own = draw.choice("buckets of a direction", [32, 16, 8, 4])
    layout = (
        own * (1 if causal else 2),
        own // 2 * draw.choice("far", [4, 8, 27]),
        causal,
    )
    distance = torch.arange(-600, 601)
    found = attempt.bucket(distance[None], *layout)[0].tolist()
    for d, bucket in zip(distance.tolist(), found, strict=True):
        if bucket != (right := expected_bucket(d, *layout)):
            raise Broken(
                f"distance {d} fell into bucket {bucket}, expected {right}",
                f"距离 {d} 落进第 {bucket} 个桶，应为第 {right} 个",
            )


@check(en="The bias belongs to heads and distances", zh="偏置属于头和距离")
def bias(attempt, draw: Draw):
    """Entry (h, t, s) is the table's number for this head and bucket."""
    T, S, H = draw.size("T", 1, 4), draw.size("S", 1, 4), draw.size("H", 1, 3)
    start = draw.choice("start", [None, 0, 2])
    first, table = S - T if start is None else start, draw.normal(8, H)
    found = attempt.relative_bias(table, T, S, far=6, start=start)
    expected = torch.empty(H, T, S, dtype=table.dtype)
    for t in range(T):
        for s in range(S):
            row = expected_bucket(s - first - t, 8, 6, False)
            expected[:, t, s] = table[row]
    agreement(found, expected, en="the bias", zh="偏置")


@check(en="A cache changes nothing", zh="有没有缓存结果一样")
def cached(attempt, draw: Draw):
    """Pieces against all keys so far equal the full causal pass."""
    table = draw.normal(8, 1)

    def attend(x, y):
        T, S = x.shape[1], y.shape[1]
        mask = torch.ones(1, 1, T, S, dtype=torch.bool).tril(S - T)
        added = attempt.relative_bias(table, T, S, far=9, causal=True)
        q, k = x[:, None], y[:, None]
        return attempt.biased_attend(q, k, k, added, mask)[:, 0]

    def step(piece, cache):
        cache = piece if cache is None else torch.cat([cache, piece], 1)
        return attend(piece, cache), cache

    x = draw.normal(1, draw.size("T", 1, 6), 4)
    cached_equals_full(lambda x: attend(x, x), step, x, draw)


@check(en="A query without keys gives zeros", zh="没有键可看的查询输出零")
def blind(attempt, draw: Draw):
    """Not NaN, and not the average of the values."""
    x = draw.normal(1, 1, draw.size("T", 1, 3), 4)
    T = x.shape[2]
    mask = torch.ones(1, 1, T, T, dtype=torch.bool)
    mask[:, :, -1] = False
    last = attempt.biased_attend(x, x, x, draw.normal(1, T, T), mask)[:, :, -1]
    agreement(last, torch.zeros_like(last), en="its output", zh="它的输出")


@check(en="Masked keys may hold NaN", zh="被挡住的键可以是 NaN")
def poison(attempt, draw: Draw):
    """Padding equals no padding."""
    T = draw.size("T", 1, 4)
    x, added = draw.normal(1, 1, T + 1, 4), draw.normal(1, T, T + 1)
    x[:, :, T] = draw.choice("padding", [math.nan, math.inf])
    mask = torch.ones(1, 1, T, T + 1, dtype=torch.bool)
    mask[..., T] = False
    short = x[:, :, :T]
    agreement(
        attempt.biased_attend(short, x, x, added, mask),
        attempt.biased_attend(short, short, short, added[..., :T]),
        en="the output with padding",
        zh="有填充时的输出",
    )


@check(en="Agrees with PyTorch", zh="与 PyTorch 一致")
def oracle(attempt, draw: Draw):
    """The bias as an additive mask; T5 does not scale."""
    T, S, H = draw.size("T", 1, 4), draw.size("S", 1, 5), draw.size("H", 1, 2)
    q, k, v = draw.normal(2, H, T, 4), draw.normal(2, H, S, 4), draw.normal(2, H, S, 3)
    added = draw.normal(H, T, S)
    expected = F.scaled_dot_product_attention(q, k, v, added, scale=1.0)
    found = attempt.biased_attend(q, k, v, added)
    agreement(found, expected, en="the output", zh="输出")


CHECKS = [near, distant, future, layouts, bias, cached, blind, poison, oracle]


def workload(attempt):
    """Return a call whose time and peak memory are compared with the reference's."""
    x, table = torch.randn(1, 8, 384, 64), torch.randn(32, 8)
    return lambda: attempt.biased_attend(
        x, x, x, attempt.relative_bias(table, 384, 384)
    )


# --8<-- [end:checks]
