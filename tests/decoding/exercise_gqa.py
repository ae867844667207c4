"""Exercise: grouped-query attention without copies, and pooling of heads."""

from snippets.properties.cost import largest_bytes
from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import agreement, batch_independence, causality, gap

# isort: split
# --8<-- [start:checks]
import torch
import torch.nn.functional as F
from torch import nn


def drawn_heads(draw: Draw, T=3, S=4):
    """Return queries of G·M heads, keys and values of G heads, G and M."""
    G, M = draw.size("kv heads", 1, 3), draw.size("group size", 1, 3)
    q, k, v = (draw.normal(2, n, s, 4) for n, s in ((G * M, T), (G, S), (G, S)))
    return q, k, v, G, M


def drawn_layer(attempt, draw: Draw):
    """Return a layer in float64 with heads of size 4, and an input for it."""
    G, M = draw.size("kv heads", 1, 3), draw.size("group size", 1, 3)
    torch.manual_seed(0)
    layer = attempt.GroupedQueryAttention(4 * G * M, G * M, G).double()
    return layer, draw.normal(2, draw.size("T", 2, 5), 4 * G * M)


@check(
    en="Query heads of a group read its key/value head", zh="同组的查询头读同一个键值头"
)
def groups(attempt, draw):
    q, k, v, G, M = drawn_heads(draw)
    v = torch.arange(G).double().view(1, G, 1, 1).expand_as(v)
    read = attempt.grouped_attend(q, k, v)[0, :, 0, 0].round().int().tolist()
    wanted = [g for g in range(G) for _ in range(M)]
    if read != wanted:
        raise Broken(
            f"the query heads read key/value heads {read}, expected {wanted}",
            f"各查询头读的键值头是 {read}，应为 {wanted}",
        )


@check(en="Each query head asks for itself", zh="每个查询头各问各的")
def own_queries(attempt, draw):
    q, k, v, G, M = drawn_heads(draw)
    h = draw.size("changed head", 0, G * M - 1)
    changed = q.clone()
    changed[:, h] += 1 + draw.normal(*q[:, h].shape)
    before, after = (attempt.grouped_attend(x, k, v) for x in (q, changed))
    others = [i for i in range(G * M) if i != h]
    if gap(before[:, others], after[:, others]) > 1e-9:
        raise Broken(
            "one query head changed, and the output of another head moved",
            "只改一个查询头，别的头的输出也变了",
        )


@check(en="Each head has a mask of its own", zh="每个头有自己的掩码")
def masks(attempt, draw):
    q, k, v, G, M = drawn_heads(draw)
    mask = draw.mask(2, G * M, 3, 4)
    mask[:, 0, 0] = False
    out = attempt.grouped_attend(q, k, v, mask)
    if out[:, 0, 0].ne(0).any():
        raise Broken(
            "a query that sees no key does not get zeros",
            "什么都看不到的查询，输出不是零",
        )
    for h in range(G * M):
        expected = F.scaled_dot_product_attention(
            q[:, h], k[:, h // M], v[:, h // M], mask[:, h]
        )
        agreement(out[:, h], expected, f"masked head {h}", f"带掩码的第 {h} 个头")


@check(
    en="Keys and values are not copied for every head", zh="键值不为每个头各复制一份"
)
def work(attempt, draw):
    S = draw.size("S", 200, 300)
    q, k = draw.normal(1, 16, 1, 32), draw.normal(1, 2, S, 32)
    largest = largest_bytes(lambda: attempt.grouped_attend(q, k, k))
    if largest > 1.5 * k.nbytes:
        raise Broken(
            f"a tensor of {largest} bytes is made, the keys take {k.nbytes}",
            f"生成了 {largest} 字节的张量，键本身只有 {k.nbytes} 字节",
        )


@check(en="A pooled head is the mean of its group", zh="合并后的头是组内各头的平均")
def pooled(attempt, draw):
    G, M = draw.size("kv heads", 1, 3), draw.size("group size", 1, 3)
    heads = draw.normal(G * M, 2, 3)
    expected = [sum(heads[g * M + m] for m in range(M)) / M for g in range(G)]
    found = attempt.pool_heads(heads, G)
    agreement(found, torch.stack(expected), "the pooled heads", "合并后的头")


@check(en="Tokens reach later tokens", zh="前面的词元影响后面的输出")
def reaches(attempt, draw):
    layer, x = drawn_layer(attempt, draw)
    changed = x.clone()
    changed[:, 0] += 1
    if gap(layer(x)[:, -1], layer(changed)[:, -1]) < 1e-6:
        raise Broken(
            "the first token changed, the last output did not move",
            "改动第一个词元，最后一个输出纹丝不动",
        )


@check(en="The future changes nothing", zh="后面的输入不影响前面的输出")
def future(attempt, draw):
    layer, x = drawn_layer(attempt, draw)
    B, T, _ = x.shape
    causal = torch.ones(T, T, dtype=torch.bool).tril().expand(B, T, T)
    causality(lambda x: layer(x, causal), x, draw)


@check(en="Samples do not mix", zh="样本之间互不影响")
def samples(attempt, draw):
    layer, x = drawn_layer(attempt, draw)
    batch_independence(layer, x, draw)


@check(en="Equals PyTorch with enable_gqa", zh="等于 PyTorch 的 enable_gqa")
def pytorch(attempt, draw):
    q, k, v, _, _ = drawn_heads(draw, draw.size("T", 1, 5), draw.size("S", 1, 5))
    expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    agreement(attempt.grouped_attend(q, k, v), expected, "the output", "输出")


@check(
    en="Equals multi-head attention with repeated heads",
    zh="等于把键值头重复之后的多头注意力",
)
def repeated_heads(attempt, draw):
    layer, x = drawn_layer(attempt, draw)
    H, G, D = layer.heads, layer.kv_heads, x.shape[2]
    peer = nn.MultiheadAttention(D, H, bias=False, batch_first=True).double()
    weights = [layer.to_q.weight]
    for to in (layer.to_k, layer.to_v):
        heads = to.weight.unflatten(0, (G, 4)).repeat_interleave(H // G, dim=0)
        weights.append(heads.flatten(0, 1))
    with torch.no_grad():
        peer.in_proj_weight.copy_(torch.cat(weights))
        peer.out_proj.weight.copy_(layer.to_out.weight)
    agreement(layer(x), peer(x, x, x)[0], "the layer's output", "层的输出")


CHECKS = [
    groups,
    own_queries,
    masks,
    work,
    pooled,
    reaches,
    future,
    samples,
    pytorch,
    repeated_heads,
]


def workload(attempt):
    """Return decoding steps of 32 heads against 4096 keys of 4 heads."""
    torch.manual_seed(0)
    q, k = torch.randn(1, 32, 1, 64), torch.randn(1, 4, 4096, 64)
    return lambda: attempt.grouped_attend(q, k, k)


# --8<-- [end:checks]
