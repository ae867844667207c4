"""Exercise: masks."""

from snippets.properties.cost import largest_bytes
from snippets.properties.judge import Broken, check
from snippets.properties.kit import (
    agreement,
    cached_equals_full,
    causality,
    padding_invariance,
)

# isort: split
# --8<-- [start:checks]
import torch
from torch.nn.attention import flex_attention


def looking(attempt, q, k, mask):
    """Attend with one head, (B, T, D) to (B, S, D), under a mask (T, S) or (B, T, S)."""
    B, T, S = len(q), q.shape[1], k.shape[1]
    mask = mask.expand(B, T, S).unsqueeze(1)
    return attempt.attend(q.unsqueeze(1), *[k.unsqueeze(1)] * 2, mask).squeeze(1)


def expect_equal(ours, theirs, en, zh):
    """Compare masks: dtype, shape, entries."""
    if ours.dtype != theirs.dtype:
        raise Broken(
            f"{en} has {ours.dtype}, expected {theirs.dtype}",
            f"{zh}的类型是 {ours.dtype}，应为 {theirs.dtype}",
        )
    if ours.shape == theirs.shape and not ours.equal(theirs):
        wrong = (ours != theirs).nonzero()[0].tolist()
        raise Broken(
            f"{en} is wrong at {wrong}: {ours[tuple(wrong)].item()}",
            f"{zh}在 {wrong} 处错了：{ours[tuple(wrong)].item()}",
        )
    agreement(ours, theirs, en, zh)


@check(en="Causal: the future changes nothing", zh="因果：后面的输入不影响前面")
def future(attempt, draw):
    T = draw.size("T", 2, 6)
    x = draw.normal(2, T, 4)
    causality(lambda x: looking(attempt, x, x, attempt.causal(T, T)), x, draw)


@check(en="Causal: a query sees itself", zh="因果：查询看得到自己")
def itself(attempt, draw):
    T = draw.size("T", 1, 6)
    mask = attempt.causal(T, T)
    if not mask.diagonal().all():
        raise Broken("a query does not see its own position", "有查询看不到自己的位置")


@check(en="Causal: in pieces equals in one go", zh="因果：分段等于一次算完")
def pieces(attempt, draw):
    def full(x):
        return looking(attempt, x, x, attempt.causal(x.shape[1], x.shape[1]))

    def step(piece, cache):
        seen = piece if cache is None else torch.cat([cache, piece], dim=1)
        mask = attempt.causal(piece.shape[1], seen.shape[1])
        return looking(attempt, piece, seen, mask), seen

    cached_equals_full(full, step, draw.normal(1, draw.size("T", 1, 6), 4), draw)


@check(
    en="Prefix: it sees all of itself and no more", zh="前缀：看得到整个前缀，仅此而已"
)
def whole_prefix(attempt, draw):
    n = draw.size("prefix", 1, 5)
    S = n + draw.size("after the prefix", 0, 3)
    x, length = draw.normal(1, S, 4), torch.tensor([n])
    out = looking(attempt, x, x, attempt.prefix(length, S, S))[:, :n]
    all_seen = torch.ones(n, n, dtype=torch.bool)
    expected = looking(attempt, x[:, :n], x[:, :n], all_seen)
    agreement(out, expected, "the output of the prefix", "前缀的输出")


@check(en="Padding, left or right, changes nothing", zh="左填充、右填充都不影响结果")
def padded(attempt, draw):
    left = draw.choice("padding on the left", [False, True])

    def f(x, keep):
        if left:
            x, keep = x.flip(1), keep.flip(1)
        q = x.nan_to_num(posinf=0.0)  # what padding asks does not matter
        out = looking(attempt, q, x, attempt.padding(keep, x.shape[1]))
        return out.flip(1) if left else out

    padding_invariance(f, draw.normal(2, draw.size("T", 1, 5), 4), draw)


@check(en="Packed documents equal each alone", zh="打包的文档等于各自单独算")
def packed(attempt, draw):
    first, second = draw.size("document 0", 1, 3), draw.size("document 1", 1, 3)
    x = draw.normal(1, first + second, 4)
    numbers = draw.choice("numbers", [(0, 1), (1, 0)])
    document = torch.tensor([[numbers[0]] * first + [numbers[1]] * second])
    out = looking(attempt, x, x, attempt.documents(document, first + second))
    for name, part in (("0", slice(0, first)), ("1", slice(first, None))):
        one = x[:, part]
        all_seen = torch.ones(one.shape[1], one.shape[1], dtype=torch.bool)
        alone = looking(attempt, one, one, all_seen)
        agreement(out[:, part], alone, f"document {name}", f"文档 {name} 的输出")


@check(en="Positions count from the first token", zh="位置从第一个词元数起")
def positions(attempt, draw):
    pad, T = draw.size("padding on the left", 0, 3), draw.size("tokens", 1, 4)
    keep = torch.arange(pad + T).unsqueeze(0) >= pad
    came = attempt.position_ids(keep)[:, pad:]
    expect_equal(came, torch.arange(T).unsqueeze(0), "the positions", "位置编号")


@check(
    en="Combined: a key is visible where every mask says so",
    zh="组合：每个掩码都允许才可见",
)
def every(attempt, draw):
    B, H, T, S = (draw.size(name, 1, 3) for name in ("B", "H", "T", "S"))
    one, two = draw.mask(T, S), draw.mask(B, T, S)
    expected = torch.stack([one.expand(B, T, S), two]).all(0)
    for name, came in (
        ("T × S first", attempt.combine(B, H, one, two)),
        ("B × T × S first", attempt.combine(B, H, two, one)),
    ):
        wanted = expected.unsqueeze(1).expand(B, H, T, S)
        expect_equal(came, wanted, f"the mask ({name})", f"掩码（{name}）")


@check(en="Heads take no memory of their own", zh="各头不另占内存")
def memory(attempt, draw):
    made = largest_bytes(
        lambda: attempt.combine(2, 64, attempt.causal(32, 32), draw.mask(2, 32, 32))
    )
    enough = 8 * 2 * 32 * 32
    if made > enough:
        raise Broken(
            f"64 heads make a tensor of {made} bytes, {enough} are plenty",
            f"64 个头造出了 {made} 字节的张量，{enough} 字节绰绰有余",
        )


@check(
    en="Equals FlexAttention's masks, with a cache too",
    zh="等于 FlexAttention 的掩码，有缓存时也是",
)
def flex(attempt, draw):
    T = draw.size("T", 1, 4)
    past = draw.size("in the cache", 0, 3)
    S = T + past
    keep, length = draw.mask(2, S), torch.tensor([draw.size("prefix", 0, S), 0])
    document = draw.mask(2, S, share=0.5).long()
    for en, zh, ours, rule in (
        ("causal", "因果掩码", attempt.causal(T, S), lambda b, h, t, s: s <= t + past),
        (
            "prefix",
            "前缀掩码",
            attempt.prefix(length, T, S),
            lambda b, h, t, s: (s <= t + past) | (s < length[b]),
        ),
        (
            "padding",
            "填充掩码",
            attempt.padding(keep, T),
            lambda b, h, t, s: keep[b, s],
        ),
        (
            "documents",
            "文档掩码",
            attempt.documents(document, T),
            lambda b, h, t, s: document[b, t + past] == document[b, s],
        ),
    ):
        theirs = flex_attention.create_mask(rule, 2, 1, T, S, device=keep.device)[:, 0]
        expect_equal(ours.expand(2, T, S), theirs, en, zh)


CHECKS = [
    future,
    itself,
    pieces,
    whole_prefix,
    padded,
    packed,
    positions,
    every,
    memory,
    flex,
]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    keep = torch.rand(4, 512) < 0.8
    document = (torch.arange(512) // 100).expand(4, 512)
    return lambda: attempt.combine(
        4,
        16,
        attempt.causal(512, 512),
        attempt.padding(keep, 512),
        attempt.documents(document, 512),
    )


# --8<-- [end:checks]
