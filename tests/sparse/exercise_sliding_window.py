"""Exercise: sliding-window attention."""

from snippets.properties.cost import largest_bytes
from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import (
    agreement,
    cached_equals_full,
    causality,
    chunked_equals_whole,
    gap,
)

# isort: split
# --8<-- [start:checks]
import torch
import torch.nn.functional as F


@check(en="A query sees W keys, itself last", zh="每个查询看 W 个键，最后一个是自己")
def counted(attempt, draw: Draw):
    """The mask has min(position + 1, W) keys a row, and they end at the query."""
    T, before = draw.size("T", 1, 6), draw.size("keys before the queries", 0, 4)
    W = draw.size("window", 1, 7)
    mask = attempt.window_mask(T, before + T, W)
    for row, query in zip(mask.tolist(), range(before, before + T), strict=True):
        seen = [key for key, sees in enumerate(row) if sees]
        expected = list(range(max(0, query - W + 1), query + 1))
        if seen != expected:
            raise Broken(
                en=f"the query at position {query} sees keys {seen}, not {expected}",
                zh=f"位置 {query} 的查询看的是键 {seen}，应为 {expected}",
            )


@check(en="The future changes nothing", zh="后面的输入不影响前面的输出")
def future(attempt, draw: Draw):
    """Causal, in chunks that the length does not divide."""
    W, chunk = draw.size("window", 1, 4), draw.size("chunk", 1, 4)
    x = draw.normal(1, 2, draw.size("T", 2, 7), 4)
    causality(lambda x: attempt.window_attention(x, x, x, W, chunk), x, draw, axis=2)


@check(en="Keys before the window change nothing", zh="窗口之前的键不起作用")
def outside(attempt, draw: Draw):
    """Move one key and its value: only the W queries from there on may move."""
    T, W = draw.size("T", 1, 8), draw.size("window", 1, 4)
    at = draw.size("changed key", 0, T - 1)
    q, k, v = (draw.normal(1, 2, T, 4) for _ in range(3))
    before = attempt.window_attention(q, k, v, W)
    k, v = k.clone(), v.clone()
    k[:, :, at] += 1
    v[:, :, at] += 1
    moved = (attempt.window_attention(q, k, v, W) - before).abs().amax((0, 1, 3))
    seen_by = [t for t, off in enumerate(moved.tolist()) if off > 1e-9]
    expected = list(range(at, min(T, at + W)))
    if seen_by != expected:
        raise Broken(
            en=f"key {at} moved the outputs {seen_by}, not {expected}",
            zh=f"改动键 {at}，变的是输出 {seen_by}，应为 {expected}",
        )


@check(en="The chunk does not matter", zh="块的大小不影响结果")
def chunks(attempt, draw: Draw):
    """Any chunk gives what one chunk gives."""
    W = draw.size("window", 1, 5)

    def chunked(x, chunk):
        return attempt.window_attention(x, x, x, W, chunk)

    x = draw.normal(1, 2, draw.size("T", 1, 8), 4)
    chunked_equals_whole(lambda x: chunked(x, 8), chunked, x, draw, axis=2)


@check(en="Queries are the last positions", zh="查询是最后几个位置")
def last(attempt, draw: Draw):
    """Fewer queries than keys give the last rows of the whole."""
    S, W = draw.size("S", 2, 8), draw.size("window", 1, 5)
    T = draw.size("T", 1, S - 1)
    q, k, v = (draw.normal(1, 2, S, 4) for _ in range(3))
    whole = attempt.window_attention(q, k, v, W)
    agreement(
        attempt.window_attention(q[:, :, S - T :], k, v, W),
        whole[:, :, S - T :],
        en="the output of the last queries alone",
        zh="只算最后几个查询的输出",
    )


@check(en="The cache, fed in pieces, equals the whole", zh="缓存分段输入等于一次算完")
def cached(attempt, draw: Draw):
    """Pieces of any length, longer than the window, too."""
    W = draw.size("window", 1, 4)

    def step(x, cache):
        cache = attempt.RollingCache(W) if cache is None else cache
        return cache.step(x, x, x), cache

    x = draw.normal(1, 2, draw.size("T", 1, 10), 4)
    cached_equals_full(
        lambda x: attempt.window_attention(x, x, x, W), step, x, draw, axis=2
    )


@check(en="The cache holds W positions", zh="缓存只存 W 个位置")
def slots(attempt, draw: Draw):
    """Position p stands in slot p mod W."""
    W, T = draw.size("window", 1, 4), draw.size("T", 1, 9)
    cache = attempt.RollingCache(W)
    for t in range(T):
        cache.step(*[torch.full((1, 1, 1, 2), t + 1.0)] * 3)
    expected = torch.zeros(W)
    for t in range(T):
        expected[t % W] = t + 1
    for name, held in (("k_BHWK", cache.k_BHWK), ("v_BHWV", cache.v_BHWV)):
        if tuple(held.shape) != (1, 1, W, 2):
            raise Broken(
                en=f"after {T} positions {name} has shape {tuple(held.shape)}",
                zh=f"{T} 个位置之后，{name} 的形状是 {tuple(held.shape)}",
            )
        if gap(held[0, 0, :, 0], expected) > 0:
            raise Broken(
                en=f"after positions 1 to {T} the slots hold {held[0, 0, :, 0].tolist()}",
                zh=f"依次放入 1 到 {T}，各槽里是 {held[0, 0, :, 0].tolist()}",
            )


@check(en="Nothing of size T × S is made", zh="不产生 T × S 的张量")
def work(attempt, draw: Draw):
    """The largest tensor grows with T · W."""
    T, W = 256, draw.choice("window", [4, 8])
    x = torch.randn(1, 1, T, 4)
    largest = largest_bytes(lambda: attempt.window_attention(x, x, x, W))
    if largest > 4 * T * 4 * W:
        raise Broken(
            en=f"T = {T}, W = {W}: the largest tensor has {largest} bytes, "
            f"4·T·S is {4 * T * T}",
            zh=f"T = {T}，W = {W}：最大的张量有 {largest} 字节，4·T·S 是 {4 * T * T}",
        )


@check(en="Agrees with SDPA and a band mask", zh="与带状掩码的 SDPA 一致")
def oracle(attempt, draw: Draw):
    """The same output from all scores and a mask made of two triangles."""
    S, W = draw.size("S", 1, 9), draw.size("window", 1, 10)
    T = draw.size("T", 1, S)
    q, k = draw.normal(2, 2, T, 4), draw.normal(2, 2, S, 4)
    v = draw.normal(2, 2, S, 3)
    ones = torch.ones(T, S, dtype=torch.bool)
    band = ones.tril(S - T) & ~ones.tril(S - T - W)
    agreement(
        attempt.window_attention(q, k, v, W),
        F.scaled_dot_product_attention(q, k, v, band),
        en="the output",
        zh="输出",
    )


CHECKS = [counted, future, outside, chunks, last, cached, slots, work, oracle]


def workload(attempt):
    """Return a call of no arguments whose time and peak memory are compared."""
    x = torch.randn(1, 4, 1024, 32)
    return lambda: attempt.window_attention(x, x, x, 64)


# --8<-- [end:checks]
