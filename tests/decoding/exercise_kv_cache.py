"""Exercise: a KV cache, and a layer that gives the same with it and without."""

from snippets.properties.cost import count_flops
from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import (
    agreement,
    batch_independence,
    cached_equals_full,
    causality,
)

# isort: split
# --8<-- [start:checks]
import torch
import torch.nn.functional as F


def make(attempt, capacity=9, batch=1):
    """Return a layer of 2 heads of size 4, and an empty cache for it."""
    torch.manual_seed(0)
    layer = attempt.CachedAttention(8, 2).double()
    return layer, attempt.KVCache(batch, 2, capacity, 4, torch.float64)


def pieces(attempt, draw, batch, low=1):
    """Return keys and values of up to 6 positions, and where to cut them."""
    T = draw.size("T", low, 6)
    cut = draw.size("cut", 1, T)
    k, v = draw.normal(batch, 2, T, 4), draw.normal(batch, 2, T, 4)
    return k, v, [n for n in (cut, T - cut) if n]


@check(en="The cache returns what was written into it", zh="缓存读出的就是写进去的")
def remembers(attempt, draw: Draw):
    """Keys stay keys, values stay values, in their order, in every row."""
    k, v, cuts = pieces(attempt, draw, draw.size("B", 1, 2))
    _, cache = make(attempt, batch=len(k))
    for new_k, new_v in zip(k.split(cuts, 2), v.split(cuts, 2), strict=True):
        found = cache.append(new_k, new_v)
    agreement(found[0], k, en="the keys so far", zh="目前的键")
    agreement(found[1], v, en="the values so far", zh="目前的值")


@check(en="The room is allocated once", zh="空间只分配一次")
def preallocated(attempt, draw: Draw):
    """No copy a step: what comes back is a view of the first allocation."""
    k, v, cuts = pieces(attempt, draw, 1)
    _, cache = make(attempt)
    before = cache.k_BHSK.data_ptr(), cache.v_BHSV.data_ptr()
    for new_k, new_v in zip(k.split(cuts, 2), v.split(cuts, 2), strict=True):
        found = cache.append(new_k, new_v)
        if tuple(one.data_ptr() for one in found) != before:
            raise Broken("append allocates or copies", "append 分配了新空间或做了拷贝")


@check(en="A full cache says so", zh="缓存满了会报错")
def refuses(attempt, draw: Draw):
    """ValueError when a piece does not fit, and nothing is written."""
    capacity = draw.size("capacity", 1, 4)
    filled = draw.size("filled", 0, capacity)
    new = capacity - filled + draw.size("too many", 1, 3)
    _, cache = make(attempt, capacity)
    k = draw.normal(1, 2, filled + new, 4)
    cache.append(k[:, :, :filled], k[:, :, :filled])
    old = cache.k_BHSK.clone()
    try:
        cache.append(k[:, :, filled:], k[:, :, filled:])
    except ValueError:
        agreement(cache.k_BHSK, old, en="the refused cache", zh="拒绝后的缓存")
        return
    raise Broken("too many positions were accepted", "超出容量的位置被接受了")


@check(en="The last query sees every key", zh="最后一个查询看得到所有键")
def aligned(attempt, draw: Draw):
    """Each query sees one key more than the one before it."""
    T = draw.size("T", 1, 4)
    S = T + draw.size("positions in the cache", 0, 4)
    seen = attempt.causal_mask(T, S)
    if seen.dtype != torch.bool or tuple(seen.shape) != (T, S):
        raise Broken(
            f"causal_mask({T}, {S}) is {tuple(seen.shape)}, {seen.dtype}",
            f"causal_mask({T}, {S}) 是 {tuple(seen.shape)}、{seen.dtype}",
        )
    rows = torch.arange(S - T, S).unsqueeze(1)
    if not seen.equal(torch.arange(S) <= rows):
        raise Broken(
            f"causal_mask({T}, {S}) shows or hides a wrong key",
            f"causal_mask({T}, {S}) 放行或挡住了不该的键",
        )


@check(en="The future changes nothing", zh="后面的输入不影响前面的输出")
def causal(attempt, draw: Draw):
    """Neither in one pass nor while a prompt fills a cache."""
    T = draw.size("T", 2, 6)
    x = draw.normal(1, T, 8)
    layer, _ = make(attempt)

    def filling(x):
        with torch.no_grad():
            return layer(x, make(attempt)[1])

    for call in (layer, filling):
        causality(call, x, draw)


@check(en="Samples do not mix", zh="样本之间互不影响")
def rows(attempt, draw: Draw):
    """A row of the cache belongs to one sample."""
    layer, _ = make(attempt)

    def two_pieces(x):
        _, cache = make(attempt, batch=len(x))
        with torch.no_grad():
            parts = [layer(part, cache) for part in x.split([3, 1], 1)]
        return torch.cat(parts, 1)

    batch_independence(two_pieces, draw.normal(2, 4, 8), draw)


@check(en="In pieces equals in one pass", zh="分段等于一次算完")
def cached(attempt, draw: Draw):
    """Prefill, chunked prefill, decode: any way to cut."""
    x = draw.normal(2, draw.size("T", 1, 6), 8)
    layer, _ = make(attempt)

    def step(piece, cache):
        cache = make(attempt, batch=2)[1] if cache is None else cache
        return layer(piece, cache), cache

    with torch.no_grad():
        cached_equals_full(layer, step, x, draw)


@check(en="One pass agrees with PyTorch", zh="一次算完与 PyTorch 一致")
def reference(attempt, draw: Draw):
    """Causal attention with rotated queries and keys, by complex numbers."""
    T = draw.size("T", 1, 6)
    x = draw.normal(2, T, 8)
    layer, _ = make(attempt)
    q, k, v = (
        to(x).view(2, T, 2, 4).transpose(1, 2)
        for to in (layer.to_q, layer.to_k, layer.to_v)
    )
    angle = torch.arange(T).double().outer(torch.tensor([1.0, 0.01]).double())
    turn = torch.polar(torch.ones_like(angle), angle)
    q, k = (torch.complex(*y.chunk(2, -1)) * turn for y in (q, k))
    q, k = (torch.cat([y.real, y.imag], -1) for y in (q, k))
    heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    expected = layer.to_out(heads.transpose(1, 2).reshape(2, T, 8))
    agreement(layer(x), expected, en="the output", zh="输出")


@check(en="A step does the work of one position", zh="一步只做一个位置的工作")
def work(attempt, draw: Draw):
    """Projections of one row, one query against all keys."""
    S = draw.size("positions in the cache", 8, 40)
    layer, cache = make(attempt, S + 1)
    with torch.no_grad():
        layer(draw.normal(1, S, 8), cache)
        one = draw.normal(1, 1, 8)
        flops = count_flops(lambda: layer(one, cache))
    needed = 8 * 8 * 8 + 4 * (S + 1) * 8
    if flops > 1.5 * needed:
        raise Broken(
            f"one step takes {flops} FLOPs, {needed} are needed",
            f"一步用了 {flops} FLOPs，其实只需 {needed}",
        )


CHECKS = [
    remembers,
    preallocated,
    refuses,
    aligned,
    causal,
    rows,
    cached,
    reference,
    work,
]


def workload(attempt):
    """Return a call that prefills 256 positions and decodes 16."""
    torch.manual_seed(0)
    layer = attempt.CachedAttention(64, 4)
    x = torch.randn(1, 272, 64)

    @torch.no_grad()
    def run():
        cache = attempt.KVCache(1, 4, 272, 16)
        layer(x[:, :256], cache)
        for t in range(256, 272):
            layer(x[:, t : t + 1], cache)

    return run


# --8<-- [end:checks]
