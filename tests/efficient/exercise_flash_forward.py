"""Exercise: FlashAttention, forward."""

from snippets.properties.cost import count_flops, largest_bytes
from snippets.properties.judge import Broken, check
from snippets.properties.kit import agreement

# isort: split
# --8<-- [start:checks]
import math

import torch
import torch.nn.functional as F


def inputs(draw, longest=6):
    """Return q, k, v of drawn lengths in float64, and a drawn tile."""
    T, S = draw.size("T", 1, longest), draw.size("S", 1, longest)
    q, k, v = draw.normal(1, 2, T, 4), draw.normal(1, 2, S, 4), draw.normal(1, 2, S, 3)
    return q, k, v, (draw.size("rows", 1, T + 1), draw.size("columns", 1, S + 1))


@check(en="Every query and every key counts", zh="每个查询、每个键都算到")
def any_tiles(attempt, draw):
    q, k, v, tile = inputs(draw)
    out, _ = attempt.flash_forward(q, k, v, False, *tile)
    agreement(out, F.scaled_dot_product_attention(q, k, v), "the output", "输出")


@check(
    en="Under a causal mask the last query sees the last key",
    zh="因果掩码下，最后的查询看得到最后的键",
)
def bottom_right(attempt, draw):
    q, k, v, tile = inputs(draw)
    T, S = q.shape[2], k.shape[2]
    seen = torch.ones(T, S, dtype=torch.bool).tril(S - T)
    out, _ = attempt.flash_forward(q, k, v, True, *tile)
    expected = F.scaled_dot_product_attention(q, k, v, seen)
    expected = expected.masked_fill(~seen.any(1, keepdim=True), 0.0)
    agreement(out, expected, "the output", "输出")


@check(
    en="A masked key gets nothing, however low the others score",
    zh="别的得分再低，被掩掉的键也分不到权重",
)
def low_scores(attempt, draw):
    x = torch.zeros(1, 1, 2, 1, dtype=torch.float64)
    x[:, :, 0] = draw.choice("first query", [-200.0, -400.0])
    k, v = x.abs().clamp(min=1.0), draw.normal(1, 1, 2, 3)
    out, _ = attempt.flash_forward(x, k, v, True, 2, 2)
    agreement(out[:, :, :1], v[:, :, :1], "the first output", "第一个输出")


@check(en="NaN in the future stays there", zh="后面的 NaN 漏不到前面")
def nan_ahead(attempt, draw):
    x, tile = draw.normal(1, 1, 6, 4), draw.size("tile", 1, 7)
    cut = draw.size("first bad key", 1, 5)
    clean, _ = attempt.flash_forward(x, x, x, True, tile, tile)
    bad = x.clone()
    bad[:, :, cut:] = draw.choice("there", [math.nan, math.inf])
    out, _ = attempt.flash_forward(x, bad, bad, True, tile, tile)
    agreement(out[:, :, :cut], clean[:, :, :cut], "the output before", "之前的输出")


@check(
    en="The LSE is the log of the sum of exp(score)", zh="LSE 是 exp(得分) 之和的对数"
)
def log_of_sum(attempt, draw):
    q, k, v, tile = inputs(draw)
    _, lse = attempt.flash_forward(q, k, v, False, *tile)
    expected = torch.logsumexp(q @ k.mT / math.sqrt(q.shape[3]), 3)
    agreement(lse, expected, "the LSE", "LSE")


@check(
    en="A query that sees nothing: zeros, and an LSE of -inf",
    zh="什么都看不到的查询：输出为零，LSE 为 -inf",
)
def blind(attempt, draw):
    S = draw.size("S", 1, 3)
    q, k = draw.normal(1, 1, S + 2, 4), draw.normal(1, 1, S, 4)
    out, lse = attempt.flash_forward(q, k, k, True, draw.size("rows", 1, 3), 2)
    agreement(out[:, :, :2], torch.zeros_like(q[:, :, :2]), "the output", "输出")
    if not (lse[:, :, :2] == -math.inf).all() or not lse[:, :, 2:].isfinite().all():
        raise Broken(
            f"the LSE is {lse.flatten().tolist()}, the first 2 queries see nothing",
            f"LSE 是 {lse.flatten().tolist()}，而前 2 个查询什么都看不到",
        )


@check(en="float16 is added up in float32", zh="float16 用 float32 累加")
def wide(attempt, draw):
    q, k = torch.zeros(1, 1, 1, 4).half(), torch.zeros(1, 1, 2000, 4).half()
    v = torch.full((1, 1, 2000, 1), draw.choice("every value", [40.0, 50.0])).half()
    out, _ = attempt.flash_forward(q, k, v, False, 1, 1000)
    agreement(out, v[:, :, :1], "the mean of equal values", "相等的值的平均")


@check(en="No tensor is larger than a tile", zh="张量不超过一个分片")
def no_square(attempt, draw):
    x, tile = draw.normal(1, 1, 128, 2), draw.choice("tile", [32, 24])
    largest = largest_bytes(lambda: attempt.flash_forward(x, x, x, False, tile, tile))
    allowed = 8 * max(tile * tile, 128 * 2)
    if largest > allowed:
        raise Broken(
            f"a tensor of {largest} bytes was made, {allowed} are enough",
            f"造出了 {largest} 字节的张量，{allowed} 字节就够",
        )


@check(en="Tiles above the diagonal are skipped", zh="对角线以上的分片都跳过")
def work(attempt, draw):
    n = draw.size("tiles a side", 1, 4)
    x = draw.normal(1, 1, 4 * n, 2)
    for causal, tiles in ((False, n * n), (True, n * (n + 1) // 2)):
        flops = count_flops(lambda c=causal: attempt.flash_forward(x, x, x, c, 4, 4))
        if flops > tiles * 2 * 4 * 4 * (2 + 2):
            raise Broken(
                f"causal={causal}: {flops} FLOPs, {tiles} tiles take {tiles * 128}",
                f"causal={causal}：用了 {flops} FLOPs，{tiles} 个分片只要 {tiles * 128}",
            )


CHECKS = [
    any_tiles,
    bottom_right,
    low_scores,
    nan_ahead,
    log_of_sum,
    blind,
    wide,
    no_square,
    work,
]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    x = torch.randn(1, 2, 1024, 32)
    return lambda: attempt.flash_forward(x, x, x, True, 128, 128)


# --8<-- [end:checks]
