"""Exercise: chunked attention."""

from snippets.properties.cost import count_flops, largest_bytes
from snippets.properties.judge import Broken, check
from snippets.properties.kit import agreement

# isort: split
# --8<-- [start:checks]
import math

import torch
import torch.nn.functional as F


def inputs(draw, longest=7, dtype=torch.float64):
    """Return q, k, v of drawn lengths and two drawn chunks."""
    T, S = draw.size("T", 1, longest), draw.size("S", 1, longest)
    q, k, v = (draw.normal(1, 2, n, 4, dtype=dtype) for n in (T, S, S))
    chunks = draw.size("query chunk", 1, T + 1), draw.size("key chunk", 1, S + 1)
    return q, k, v, chunks


@check(
    en="Every query is answered, whatever the chunks",
    zh="不论怎么分块，每个查询都有答案",
)
def any_chunks(attempt, draw):
    q, k, v, chunks = inputs(draw)
    out = attempt.chunked_attention(q, k, v, None, *chunks)
    expected = F.scaled_dot_product_attention(q, k, v)
    agreement(out, expected, "the output", "输出")


@check(en="A chunk may be masked from end to end", zh="整块都可以被掩掉")
def masked_chunk(attempt, draw):
    q, k, v = draw.normal(1, 1, 3, 4), draw.normal(1, 1, 6, 4), draw.normal(1, 1, 6, 4)
    mask = torch.zeros(1, 1, 3, 6, dtype=torch.bool)
    first = draw.size("first key that is seen", 0, 5)
    mask[..., first:] = True
    out = attempt.chunked_attention(q, k, v, mask, 2, 2)
    expected = F.scaled_dot_product_attention(q, k[:, :, first:], v[:, :, first:])
    agreement(out, expected, "the output", "输出")


@check(en="Each query has its own row of the mask", zh="每个查询用自己那一行掩码")
def own_rows(attempt, draw):
    q, k, v, chunks = inputs(draw)
    mask = draw.mask(1, 2, q.shape[2], k.shape[2])
    out = attempt.chunked_attention(q, k, v, mask, *chunks)
    expected = F.scaled_dot_product_attention(q, k, v, mask)
    expected = expected.masked_fill(~mask.any(3, keepdim=True), 0.0)
    agreement(out, expected, "the output", "输出")


@check(en="NaN behind the mask stays there", zh="掩码后面的 NaN 漏不出来")
def nan_behind(attempt, draw):
    q, k, v = (draw.normal(1, 1, 5, 4) for _ in range(3))
    mask = torch.ones(1, 1, 5, 5, dtype=torch.bool)
    hidden = draw.size("hidden key", 0, 4)
    mask[..., hidden] = False
    clean = attempt.chunked_attention(q, k, v, mask, 2, 2)
    k[:, :, hidden] = v[:, :, hidden] = draw.choice("there", [math.nan, math.inf])
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out = attempt.chunked_attention(*leaves, mask, 2, 2)
    agreement(out, clean, "the output", "输出")
    for grad in torch.autograd.grad(out.square().sum(), leaves):
        if not grad.isfinite().all():
            raise Broken("a gradient is not finite", "有梯度不是有限值")


@check(en="float16 is added up in float32", zh="float16 用 float32 累加")
def wide(attempt, draw):
    q, k = torch.zeros(1, 1, 1, 4).half(), torch.zeros(1, 1, 2000, 4).half()
    v = torch.full((1, 1, 2000, 1), draw.choice("every value", [40.0, 50.0])).half()
    out = attempt.chunked_attention(q, k, v, None, 1, 1000)
    agreement(out, v[:, :, :1], "the mean of equal values", "相等的值的平均")


@check(en="No tensor is larger than a chunk's scores", zh="张量不超过一块得分的大小")
def no_square(attempt, draw):
    x, chunk = draw.normal(1, 1, 128, 2), draw.choice("chunk", [32, 24])
    with torch.no_grad():
        largest = largest_bytes(
            lambda: attempt.chunked_attention(x, x, x, None, chunk, chunk)
        )
    allowed = 8 * max(chunk * chunk, 128 * 2)
    if largest > allowed:
        raise Broken(
            f"a tensor of {largest} bytes was made, {allowed} are enough",
            f"造出了 {largest} 字节的张量，{allowed} 字节就够",
        )


@check(en="Gradients equal PyTorch's", zh="梯度与 PyTorch 一致")
def gradients(attempt, draw):
    q, k, v, chunks = inputs(draw, 5)
    leaves, upstream = [x.requires_grad_() for x in (q, k, v)], draw.normal(*q.shape)
    out = attempt.chunked_attention(*leaves, None, *chunks)
    ours = torch.autograd.grad(out, leaves, upstream)
    out = F.scaled_dot_product_attention(*leaves)
    theirs = torch.autograd.grad(out, leaves, upstream)
    for name, a, b in zip("qkv", ours, theirs, strict=True):
        agreement(a, b, f"the gradient of {name}", f"{name} 的梯度")


@check(en="Little is kept for the backward", zh="为反向留下的很少")
def kept(attempt, draw):
    x = draw.normal(1, 1, 128, 2).requires_grad_()
    chunk, sizes = draw.choice("chunk", [32, 64]), {}

    def keep(one):
        sizes[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        out = attempt.chunked_attention(x, x, x, None, chunk, chunk)
    total, allowed = sum(sizes.values()), 8 * 128 * 2 * 8
    if out.requires_grad and total > allowed:
        raise Broken(
            f"{total} bytes are kept for the backward, {allowed} are plenty",
            f"为反向保留了 {total} 字节，{allowed} 字节绰绰有余",
        )


@check(
    en="The forward does the work of attention, no more",
    zh="前向的计算量与普通注意力相同",
)
def work(attempt, draw):
    x, chunk = draw.normal(1, 1, 32, 4), draw.choice("chunk", [8, 16])
    with torch.no_grad():
        flops = count_flops(
            lambda: attempt.chunked_attention(x, x, x, None, chunk, chunk)
        )
    if flops > 4 * 32 * 32 * 4:
        raise Broken(
            f"it takes {flops} FLOPs, {4 * 32 * 32 * 4} are enough",
            f"用了 {flops} FLOPs，{4 * 32 * 32 * 4} 就够",
        )


CHECKS = [
    any_chunks,
    masked_chunk,
    own_rows,
    nan_behind,
    wide,
    no_square,
    gradients,
    kept,
    work,
]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    x = torch.randn(1, 2, 512, 32, requires_grad=True)

    def step():
        with torch.enable_grad():
            attempt.chunked_attention(x, x, x, None, 128, 128).sum().backward()

    return step


# --8<-- [end:checks]
