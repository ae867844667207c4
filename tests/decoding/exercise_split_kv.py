"""Exercise: split-KV decoding."""

from snippets.properties.cost import largest_bytes
from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import agreement, allowed, chunked_equals_whole, gap

# isort: split
# --8<-- [start:checks]
import math

import torch
import torch.nn.functional as F


@check(en="A part tells its log-sum-exp", zh="每一段给出自己的 log-sum-exp")
def log_sum_exp(attempt, draw: Draw):
    """Natural logarithm, of scaled scores; -inf and zeros where nothing is seen."""
    S = draw.size("S", 0, 5)
    q, k, v = (draw.normal(1, 2, n, 4) for n in (2, S, S))
    mask = draw.mask(1, 2, 2, S)
    out, lse = attempt.attend_part(q, k, v, mask)
    score = (q @ k.mT / 2).masked_fill(~mask, -math.inf)
    expected = score.exp().sum(-1).log()
    blind = expected == -math.inf
    wrong = lse[blind][lse[blind] != -math.inf]
    if wrong.numel():
        raise Broken(
            en=f"a query that sees no key of this part has lse {wrong[0].item()}",
            zh=f"看不到这一段任何键的查询，lse 是 {wrong[0].item()}",
        )
    agreement(lse[~blind], expected[~blind], en="lse", zh="lse ")
    agreement(
        out[blind], torch.zeros_like(out[blind]), "out, unseen", "看不到键时的输出"
    )


@check(en="Two parts make the whole", zh="两段合成整体")
def two_parts(attempt, draw: Draw):
    """Cut the keys anywhere, attend to each side, merge."""
    S = draw.size("S", 2, 7)
    cut = draw.size("keys in the first part", 1, S - 1)
    q, k, v = (draw.normal(1, 2, n, 4) for n in (2, S, S))
    parts = [
        attempt.attend_part(q, k[:, :, one], v[:, :, one])
        for one in (slice(0, cut), slice(cut, S))
    ]
    out, lse = (torch.stack(one) for one in zip(*parts, strict=True))
    agreement(
        attempt.merge(out, lse)[0],
        F.scaled_dot_product_attention(q, k, v),
        en="the merged output",
        zh="合并后的输出",
    )


@check(en="Nothing overflows at ±10⁴", zh="±10⁴ 也不溢出")
def stable(attempt, draw: Draw):
    """Two parts with huge log-sum-exps, close to each other or far apart."""
    large = draw.choice("lse", [1e2, 1e4, -1e2, -1e4])
    apart = draw.choice("difference", [0.0, 1.0, 1e4])
    lse = torch.tensor([large, large - apart]).reshape(2, 1, 1, 1)
    out = draw.normal(2, 1, 1, 1, 3, dtype=torch.float32)
    merged, total = attempt.merge(out, lse)
    share = 1 / (1 + math.exp(-min(apart, 700.0)))
    agreement(merged, share * out[0] + (1 - share) * out[1], "merged", "合并后的输出")
    agreement(total, lse[0] - math.log(share), "the merged lse", "合并后的 lse ")


@check(en="Empty parts count for nothing", zh="空段不起作用")
def nothing(attempt, draw: Draw):
    """Only empty parts: zeros and -inf; an empty part beside others changes nothing."""
    N, empty = draw.size("other parts", 0, 2), draw.size("empty parts", 1, 2)
    out, lse = draw.normal(N, 1, 2, 1, 3), draw.normal(N, 1, 2, 1)
    none = torch.zeros(empty, 1, 2, 1, 3).to(out), torch.zeros(empty, 1, 2, 1).to(out)
    merged, total = attempt.merge(
        torch.cat([none[0], out]), torch.cat([none[1] - math.inf, lse])
    )
    if merged.isnan().any() or total.isnan().any():
        raise Broken(
            en="an empty part, zeros with lse -inf, makes NaN",
            zh="空段（输出为零、lse 为 -inf）带来了 NaN",
        )
    if N == 0:
        agreement(merged, none[0][0], en="nothing merged", zh="全空时的输出")
        if not total.eq(-math.inf).all():
            raise Broken(
                en=f"nothing merged has lse {total.max().item()}",
                zh=f"全空时 lse 是 {total.max().item()}",
            )
        return
    expected = attempt.merge(out, lse)
    agreement(merged, expected[0], "with an empty part the output", "有空段时，输出")
    agreement(total, expected[1], "with an empty part the lse", "有空段时，lse ")


@check(en="Merging in pairs equals merging at once", zh="两两合并等于一次合并")
def tree(attempt, draw: Draw):
    """The merge is associative, so its lse must be right, too."""
    out, lse = draw.normal(3, 1, 2, 1, 3), 3 * draw.normal(3, 1, 2, 1)
    first = attempt.merge(out[:2], lse[:2])
    pair = attempt.merge(
        torch.stack([first[0], out[2]]), torch.stack([first[1], lse[2]])
    )
    once = attempt.merge(out, lse)
    off = max(gap(pair[0], once[0]), gap(pair[1], once[1]))
    if not off <= allowed(once[0]):
        raise Broken(
            en=f"((1, 2), 3) and (1, 2, 3) differ by {off:.2g}",
            zh=f"((1, 2), 3) 与 (1, 2, 3) 相差 {off:.2g}",
        )


@check(en="The number of parts does not matter", zh="分成几段不影响结果")
def any_split(attempt, draw: Draw):
    """More parts than keys, parts that do not divide the keys."""
    x = draw.normal(1, 2, draw.size("S", 1, 8), 4)
    chunked_equals_whole(
        lambda x: F.scaled_dot_product_attention(x, x, x),
        lambda x, splits: attempt.split_attend(x, x, x, splits),
        x,
        draw,
        axis=2,
    )


@check(en="No part holds all scores", zh="没有哪一段算全部得分")
def work(attempt, draw: Draw):
    """The largest tensor shrinks with the number of parts."""
    splits = draw.choice("splits", [4, 8])
    q, k = torch.randn(1, 1, 64, 4), torch.randn(1, 1, 1024, 4)
    largest, whole = (
        largest_bytes(lambda n=n: attempt.split_attend(q, k, k, n)) for n in (splits, 1)
    )
    if largest > 4 * 64 * 1024 / splits * 1.5:
        raise Broken(
            en=f"in {splits} parts the largest tensor has {largest} bytes, "
            f"in one part {whole}",
            zh=f"分成 {splits} 段，最大的张量有 {largest} 字节，不分时是 {whole}",
        )


@check(en="Agrees with SDPA under a mask", zh="有掩码时与 SDPA 一致")
def oracle(attempt, draw: Draw):
    """Queries that see nothing, parts that are all masked, NaN behind the mask."""
    S, splits = draw.size("S", 1, 8), draw.size("splits", 1, 5)
    q, k, v = (draw.normal(2, 2, n, 4) for n in (2, S, S))
    mask = draw.mask(2, 2, 2, S)
    mask[..., S - 1 :] = False
    expected = F.scaled_dot_product_attention(q, k, v, mask)
    bad = draw.choice("behind the mask", [0.0, math.inf, math.nan])
    k[:, :, S - 1 :] = v[:, :, S - 1 :] = bad
    agreement(
        attempt.split_attend(q, k, v, splits, mask), expected, "the output", "输出"
    )


CHECKS = [log_sum_exp, two_parts, stable, nothing, tree, any_split, work, oracle]


def workload(attempt):
    """Return a call of no arguments whose time and peak memory are compared."""
    q, k = torch.randn(1, 8, 1, 64), torch.randn(1, 8, 4096, 64)
    return lambda: attempt.split_attend(q, k, k, 8)


# --8<-- [end:checks]
