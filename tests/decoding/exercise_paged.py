"""Exercise: paged attention."""

from snippets.properties.cost import largest_bytes
from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import agreement

# isort: split
# --8<-- [start:checks]
import math

import torch
import torch.nn.functional as F


def fill(attempt, lengths, C, blocks=40):
    """Return a cache with sequences appended in turns, two positions at a time."""
    cache = attempt.PagedCache(blocks, C, 2, 4, 4)
    generator = torch.Generator("cpu").manual_seed(sum(lengths))
    dense = {}
    for name, n in zip("abcdef", lengths, strict=False):
        made = torch.randn(2, n, 2, 4, generator=generator, device="cpu")
        dense[name] = made.to(torch.get_default_device())
    for start in range(0, max(lengths), 2):
        for name, (k, v) in dense.items():
            if start < len(k):
                cache.append(name, k[start : start + 2], v[start : start + 2])
    return cache, dense


def alone(q, k, v):
    """Attend from the last queries to one contiguous sequence."""
    k, v = (x.transpose(0, 1).unsqueeze(0) for x in (k, v))
    T, S = q.shape[2], k.shape[2]
    mask = torch.ones(T, S, dtype=torch.bool).tril(S - T)
    return F.scaled_dot_product_attention(q, k, v, mask)


@check(en="What was appended can be read", zh="写进去的读得出来")
def stored(attempt, draw: Draw):
    """Position p stands at place p mod C of block p div C of its table."""
    C, lengths = draw.size("C", 1, 4), [draw.size("length", 1, 9), 5]
    cache, dense = fill(attempt, lengths, C)
    for name, (k, v) in dense.items():
        table, length = cache.tables[name], cache.lengths[name]
        if length != len(k):
            raise Broken(
                en=f"{len(k)} positions appended, lengths has {length}",
                zh=f"写入了 {len(k)} 个位置，lengths 里是 {length}",
            )
        for p in range(length):
            here = table[p // C], p % C
            if not (cache.k_NCHK[here].equal(k[p]) and cache.v_NCHV[here].equal(v[p])):
                raise Broken(
                    en=f"position {p} is not at place {here[1]} of block {here[0]}",
                    zh=f"位置 {p} 不在块 {here[0]} 的第 {here[1]} 个位置上",
                )


@check(en="At most C − 1 places are wasted", zh="每个序列最多浪费 C − 1 个位置")
def waste(attempt, draw: Draw):
    """No block is taken before it is needed."""
    C, n = draw.size("C", 1, 4), draw.size("length", 1, 9)
    cache, _ = fill(attempt, [n], C)
    came, needed = len(cache.tables["a"]), -(-n // C)
    if came != needed or len(cache.free) != 40 - needed:
        raise Broken(
            en=f"{n} positions in blocks of {C} took {came} blocks and left "
            f"{len(cache.free)} of 40 free",
            zh=f"{n} 个位置、每块 {C} 个，用了 {came} 块，40 块里还剩 {len(cache.free)} 块空闲",
        )


@check(en="A fork copies nothing", zh="分叉什么也不复制")
def forked(attempt, draw: Draw):
    """A fork takes no block; its first write takes one at most."""
    C, n = draw.size("C", 2, 4), draw.size("length", 1, 9)
    cache, _ = fill(attempt, [n], C)
    free = len(cache.free)
    cache.fork("a", "b")
    if len(cache.free) != free:
        raise Broken(
            en=f"the fork took {free - len(cache.free)} blocks",
            zh=f"分叉占用了 {free - len(cache.free)} 块",
        )
    cache.append("b", torch.ones(1, 2, 4), torch.ones(1, 2, 4))
    if len(cache.free) != free - 1:
        raise Broken(
            en=f"one position after a fork took {free - len(cache.free)} blocks",
            zh=f"分叉之后写一个位置，占用了 {free - len(cache.free)} 块",
        )


@check(en="Parent and child do not disturb each other", zh="分叉双方互不干扰")
def apart(attempt, draw: Draw):
    """Both go on after a fork, in either order; both read what they wrote."""
    C, n = draw.size("C", 1, 4), draw.size("length", 1, 9)
    cache, dense = fill(attempt, [n], C)
    cache.fork("a", "b")
    written = {name: list(dense["a"][0]) for name in "ab"}
    for step, name in enumerate(draw.choice("order", ["abab", "baba", "bbaa"])):
        new = torch.full((1, 2, 4), step + 1.0)
        cache.append(name, new, new)
        written[name].append(new[0])
    for name in "ab":
        table = cache.tables[name]
        read = cache.k_NCHK[table].flatten(0, 1)[: cache.lengths[name]]
        if not read.equal(torch.stack(written[name])):
            who = {
                "a": ("the parent", "分叉前的序列"),
                "b": ("the fork", "分叉出的序列"),
            }
            raise Broken(
                en=f"after both went on, {who[name][0]} reads other keys than it wrote",
                zh=f"双方各自写过之后，{who[name][1]}读出的键不是它写的",
            )


@check(en="Blocks come back when nobody uses them", zh="没人用的块会归还")
def released(attempt, draw: Draw):
    """A released sequence frees its own blocks, and no block of its fork."""
    C, n = draw.size("C", 1, 4), draw.size("length", 1, 9)
    cache, dense = fill(attempt, [n], C)
    cache.fork("a", "b")
    cache.release(draw.choice("released", ["a", "b"]))
    (left,) = cache.tables
    if set(cache.tables[left]) & set(cache.free):
        raise Broken(
            en="a block that a sequence still uses is free",
            zh="还有序列在用的块，已经在空闲表里了",
        )
    cache.append("c", torch.ones(9, 2, 4), torch.ones(9, 2, 4))
    read = cache.k_NCHK[cache.tables[left]].flatten(0, 1)[:n]
    agreement(read, dense["a"][0], "what the fork still reads", "剩下的序列读出的键")
    for name in (left, "c"):
        cache.release(name)
    if sorted(cache.free) != list(range(40)):
        raise Broken(
            en=f"all released, {len(cache.free)} of 40 blocks are free",
            zh=f"全部释放之后，40 块里空闲的有 {len(cache.free)} 块",
        )


@check(en="Rows belong to the sequences asked for", zh="每一行对应所问的序列")
def rows(attempt, draw: Draw):
    """Any order of names; each output is that of its own sequence."""
    cache, dense = fill(attempt, [4, 2, 6], draw.size("C", 1, 2))
    order = draw.choice("sequences", [["a", "b"], ["b", "a"], ["c", "a"], ["b"]])
    q = draw.normal(len(order), 2, 1, 4, dtype=torch.float32)
    out = attempt.paged_attention(q, cache.k_NCHK, cache.v_NCHV, *cache.batch(order))
    for b, name in enumerate(order):
        agreement(
            out[b : b + 1],
            alone(q[b : b + 1], *dense[name]),
            en=f"row {b}, sequence {name},",
            zh=f"第 {b} 行（序列 {name}）的输出",
        )


@check(en="Nothing after the end is read", zh="不读末尾之后的内容")
def end(attempt, draw: Draw):
    """Garbage in the rest of the last block and in free blocks changes nothing."""
    C, n = draw.size("C", 2, 5), draw.size("length", 1, 9)
    cache, dense = fill(attempt, [n, 11], C)
    bad = draw.choice("after the end", [50.0, math.inf, math.nan])
    for name, length in cache.lengths.items():
        if length % C:
            cache.k_NCHK[cache.tables[name][-1], length % C :] = bad
            cache.v_NCHV[cache.tables[name][-1], length % C :] = bad
    for block in cache.free:
        cache.k_NCHK[block] = cache.v_NCHV[block] = bad
    q = draw.normal(2, 2, 1, 4, dtype=torch.float32)
    out = attempt.paged_attention(
        q, cache.k_NCHK, cache.v_NCHV, *cache.batch(["a", "b"])
    )
    agreement(out[:1], alone(q[:1], *dense["a"]), "the output", "输出")


@check(en="Keys are looked up, not the whole pool", zh="按表取块，不算整个池子")
def work(attempt, draw: Draw):
    """Work does not grow with the blocks that other sequences have."""
    cache, _ = fill(attempt, [6, 5], 4, blocks=draw.choice("blocks", [2000, 4000]))
    q, table = torch.randn(2, 2, 1, 4), cache.batch(["a", "b"])
    largest = largest_bytes(
        lambda: attempt.paged_attention(q, cache.k_NCHK, cache.v_NCHV, *table)
    )
    pool = cache.k_NCHK.numel() * 4
    if largest > pool // 8:
        raise Broken(
            en=f"the largest tensor has {largest} bytes; all blocks have {pool}",
            zh=f"最大的张量有 {largest} 字节；整个池子是 {pool} 字节",
        )


@check(en="Agrees with SDPA on contiguous sequences", zh="与连续存放的 SDPA 一致")
def oracle(attempt, draw: Draw):
    """Several queries, causal, unequal lengths."""
    C, T = draw.size("C", 1, 4), draw.size("T", 1, 3)
    lengths = [draw.size("length", T, 9), draw.size("other length", T, 9)]
    cache, dense = fill(attempt, lengths, C)
    q = draw.normal(2, 2, T, 4, dtype=torch.float32)
    out = attempt.paged_attention(
        q, cache.k_NCHK, cache.v_NCHV, *cache.batch(["a", "b"])
    )
    expected = torch.cat([alone(q[b : b + 1], *dense["ab"[b]]) for b in range(2)])
    agreement(out, expected, "the output", "输出")


CHECKS = [stored, waste, forked, apart, released, rows, end, work, oracle]


def workload(attempt):
    """Return a call of no arguments whose time and peak memory are compared."""
    cache = attempt.PagedCache(300, 16, 4, 32, 32)
    for name, n in (("a", 1000), ("b", 700), ("c", 1300)):
        cache.append(name, torch.randn(n, 4, 32), torch.randn(n, 4, 32))
    q, table = torch.randn(3, 4, 1, 32), cache.batch(["a", "b", "c"])
    return lambda: attempt.paged_attention(q, cache.k_NCHK, cache.v_NCHV, *table)


# --8<-- [end:checks]
