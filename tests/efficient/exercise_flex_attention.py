"""Exercise: FlexAttention."""

from snippets.properties.cost import count_flops
from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import agreement

# isort: split
# --8<-- [start:checks]
import math

import torch
from torch.nn.attention import flex_attention as pytorch_flex


def spots(B: int, H: int, T: int, S: int) -> tuple:
    """Return b, h, t and s, broadcasting to (B, H, T, S)."""
    b, h = torch.arange(B)[:, None, None, None], torch.arange(H)[:, None, None]
    return b, h, torch.arange(T)[:, None], torch.arange(S)


def same_mask(mask_mod, rule, B: int, T: int, S: int) -> None:
    """Expect a mask_mod to say at every position what the rule says."""
    mask = mask_mod(*spots(B, 1, T, S))
    if mask.dtype != torch.bool:
        raise Broken(f"the mask is {mask.dtype}", f"掩码的类型是 {mask.dtype}")
    mask = mask.expand(B, 1, T, S)
    for b in range(B):
        for t in range(T):
            for s in range(S):
                if mask[b, 0, t, s].item() != rule(b, t, s):
                    raise Broken(
                        f"sequence {b}, query {t}, key {s}: {not rule(b, t, s)}",
                        f"序列 {b}、查询 {t}、键 {s}：得到 {not rule(b, t, s)}",
                    )


@check(en="Causal, window and prefix masks", zh="因果、滑动窗口和前缀掩码")
def positions(attempt, draw: Draw):
    T, width = draw.size("T", 1, 6), draw.size("width", 1, 4)
    same_mask(attempt.causal, lambda b, t, s: s <= t, 1, T, T)
    window = attempt.sliding_window(width)
    same_mask(window, lambda b, t, s: t - width < s <= t, 1, T, T)
    same_mask(attempt.prefix(width), lambda b, t, s: s <= t or s < width, 1, T, T)


@check(en="Documents of each sequence", zh="每个序列各自的文档")
def documents(attempt, draw: Draw):
    B, T = draw.size("B", 1, 2), draw.size("T", 1, 6)
    number = (draw.normal(B, T) > 0.5).long().cumsum(1)

    def rule(b, t, s):
        return s <= t and bool(number[b, t] == number[b, s])

    same_mask(attempt.document(number), rule, B, T, T)


@check(en="ALiBi, soft cap, and their chain", zh="ALiBi、软上限，以及两者连用")
def biases(attempt, draw: Draw):
    T, S = draw.size("T", 1, 3), draw.size("S", 1, 4)
    score, slope, where = draw.normal(1, 2, T, S), draw.normal(2), spots(1, 2, T, S)
    distance = (where[2] - where[3]).double()
    biased = score - slope[:, None, None] * distance
    first, cap = attempt.alibi(slope), attempt.soft_cap(0.7)
    agreement(first(score, *where), biased, "the score with ALiBi", "加 ALiBi 的得分")
    capped = 0.7 * torch.tanh(biased / 0.7)
    both = attempt.chain(first, cap)(score, *where)
    agreement(both, capped, "ALiBi, then the cap", "先 ALiBi 再上限")


@check(en="Scores arrive scaled", zh="得分传入前已缩放")
def scaled(attempt, draw: Draw):
    T, K, seen = draw.size("T", 1, 4), draw.size("K", 1, 5), []
    q, k = draw.normal(1, 1, T, K), draw.normal(1, 1, 3, K)
    attempt.flex(q, k, k, lambda score, *where: seen.append(score) or score)
    agreement(seen[0], q @ k.mT / math.sqrt(K), "the score", "得分")


@check(en="A hidden key stays hidden", zh="被遮住的键始终看不到")
def hidden(attempt, draw: Draw):
    T = draw.size("T", 1, 5)
    q, v = draw.normal(1, 1, T, 2), torch.eye(T, dtype=torch.float64)[None, None]
    weight = attempt.flex(q, q, v, lambda score, *where: 0 * score, attempt.causal)
    if weight.triu(1).any():
        raise Broken("a later key has weight", "后面的键得到了权重")
    agreement(weight.sum(-1), torch.ones(1, 1, T).double(), "a row's sum", "每行之和")


@check(en="Queries without keys give zeros; NaN stays behind the mask",
       zh="看不到键的查询输出零；掩码后的 NaN 不外漏")  # fmt: skip
def blind(attempt, draw: Draw):
    q, k = draw.normal(1, 2, 4, 3), draw.normal(1, 2, 5, 3)

    def mask_mod(b, h, t, s):
        return (t != 1) & (s < 3)

    before = attempt.flex(q, k, k, mask_mod=mask_mod)
    k[:, :, 3:] = draw.choice("behind the mask", [7.0, math.inf, math.nan])
    after = attempt.flex(q, k, k, mask_mod=mask_mod)
    agreement(after[:, :, 1], torch.zeros(1, 2, 3).double(), "query 1", "查询 1")
    agreement(after, before, "the output", "输出")


@check(en="Kinds of blocks", zh="块的种类")
def kinds(attempt, draw: Draw):
    T, S, C = draw.size("T", 1, 9), draw.size("S", 1, 9), draw.size("C", 1, 4)
    width = draw.size("width", 1, 6)

    def mask_mod(b, h, t, s):
        return (t >= s) & (t - s < width) & (b + h < 2)

    theirs = pytorch_flex.create_block_mask(mask_mod, 2, 2, T, S, BLOCK_SIZE=C)
    ours = attempt.block_kinds(mask_mod, 2, 2, T, S, C)
    for kind, expected in ((1, theirs.kv_num_blocks), (2, theirs.full_kv_num_blocks)):
        if not (ours == kind).sum(-1).equal(expected.long()):
            raise Broken(
                f"blocks of kind {kind} in each row are counted wrongly",
                f"各行中第 {kind} 类块的数目不对",
            )


@check(en="Block by block equals all at once", zh="逐块计算等于一次算完")
def whole(attempt, draw: Draw):
    T, S, C = draw.size("T", 1, 7), draw.size("S", 1, 7), draw.size("C", 1, 4)
    q, k = draw.normal(2, 1, T, 3), draw.normal(2, 1, S, 3)
    number = (draw.normal(2, 8) > 0).long().cumsum(1)

    def mask_mod(b, h, t, s):
        return number[b, t] == number[b, s]

    def score_mod(score, b, h, t, s):
        return score - 0.3 * (t - s)

    full = attempt.flex(q, k, k, score_mod, mask_mod)
    agreement(attempt.flex_blocks(q, k, k, mask_mod, score_mod, C), full)


@check(en="Empty blocks cost nothing", zh="空块不花计算量")
def skipped(attempt, draw: Draw):
    C, N = draw.size("C", 1, 3), draw.size("blocks", 1, 4)
    x = draw.normal(1, 2, C * N, 4)

    def mask_mod(b, h, t, s):
        return t // C == s // C

    flops = count_flops(lambda: attempt.flex_blocks(x, x, x, mask_mod, C=C))
    enough = 4 * 2 * N * C * C * 4
    if flops > enough:
        raise Broken(
            f"{flops} FLOPs where {enough} are enough",
            f"用了 {flops} FLOPs，{enough} 就够",
        )


@check(en="Equals PyTorch's flex_attention", zh="等于 PyTorch 的 flex_attention")
def pytorch(attempt, draw: Draw):
    T, S, H = draw.size("T", 1, 5), draw.size("S", 1, 5), 2
    q, (k, v) = draw.normal(2, H, T, 4), draw.normal(2, 2, H, S, 4)
    slope = draw.normal(H)

    def score_mod(score, b, h, t, s):
        return torch.tanh(score - slope[h] * (t - s))

    def mask_mod(b, h, t, s):
        return (t + b >= s) & (s - t < 3 + h)

    out = attempt.flex(q, k, v, score_mod, mask_mod)
    flag = "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"  # eager, without tracing it first
    before = getattr(pytorch_flex, flag)
    setattr(pytorch_flex, flag, True)
    try:
        block_mask = pytorch_flex.create_block_mask(mask_mod, 2, H, T, S)
        theirs = pytorch_flex.flex_attention(q, k, v, score_mod, block_mask)
    finally:
        setattr(pytorch_flex, flag, before)
    agreement(out, theirs, "the output", "输出")


CHECKS = [
    positions, documents, biases, scaled, hidden, blind, kinds, whole, skipped, pytorch
]  # fmt: skip


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    x, window = torch.randn(1, 2, 1024, 32), attempt.sliding_window(64)
    return lambda: attempt.flex_blocks(x, x, x, window, C=64)


# --8<-- [end:checks]
