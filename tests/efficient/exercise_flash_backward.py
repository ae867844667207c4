"""Exercise: FlashAttention, backward."""

from snippets.properties.cost import count_flops, largest_bytes
from snippets.properties.judge import Broken, check
from snippets.properties.kit import agreement

# isort: split
# --8<-- [start:checks]
import math

import torch
import torch.nn.functional as F


def both(attempt, draw, causal, longest=5):
    """Return the attempt's gradients and PyTorch's, as pairs with names."""
    T, S = draw.size("T", 1, longest), draw.size("S", 1, longest)
    if causal and T > S:
        T, S = S, T
    q, k, v = draw.normal(1, 2, T, 4), draw.normal(1, 2, S, 4), draw.normal(1, 2, S, 3)
    leaves, upstream = [x.requires_grad_() for x in (q, k, v)], draw.normal(1, 2, T, 3)
    tile = draw.size("rows", 1, T + 1), draw.size("columns", 1, S + 1)
    seen = torch.ones(T, S, dtype=torch.bool).tril(S - T if causal else S)
    out = attempt.flash_attention(*leaves, causal, *tile)
    ours = torch.autograd.grad(out, leaves, upstream)
    out = F.scaled_dot_product_attention(*leaves, seen)
    theirs = torch.autograd.grad(out, leaves, upstream)
    return zip(("dQ", "dK", "dV"), ours, theirs, strict=True)


@check(
    en="With one tile, gradients equal PyTorch's",
    zh="只有一个分片时，梯度与 PyTorch 一致",
)
def one_tile(attempt, draw):
    n = draw.size("T = S", 1, 4)
    leaves = [draw.normal(1, 1, n, 4).requires_grad_() for _ in range(3)]
    upstream = draw.normal(1, 1, n, 4)
    out = attempt.flash_attention(*leaves, False, n, n)
    ours = torch.autograd.grad(out, leaves, upstream)
    out = F.scaled_dot_product_attention(*leaves)
    theirs = torch.autograd.grad(out, leaves, upstream)
    # dV first: it needs nothing but the weights.
    for name, one in (("dV", 2), ("dQ", 0), ("dK", 1)):
        agreement(ours[one], theirs[one], name, name)


@check(en="Tiles add up", zh="各分片加得起来")
def any_tiles(attempt, draw):
    for name, ours, theirs in both(attempt, draw, causal=False):
        agreement(ours, theirs, name, name)


@check(en="The mask holds in the backward, too", zh="反向也守掩码")
def causal(attempt, draw):
    for name, ours, theirs in both(attempt, draw, causal=True):
        agreement(ours, theirs, name, name)


@check(en="Queries that see nothing leave no trace", zh="什么都看不到的查询不留痕迹")
def blind(attempt, draw):
    S = draw.size("S", 1, 3)
    q, k = draw.normal(1, 1, S + 2, 4), draw.normal(1, 1, S, 4).requires_grad_()
    rows, upstream = draw.size("rows", 1, 4), draw.normal(1, 1, S + 2, 4)
    q[:, :, :2] = draw.choice("they hold", [1.0, math.nan, math.inf])
    found = []
    for first in (0, 2):
        part = q[:, :, first:].clone().requires_grad_()
        out = attempt.flash_attention(part, k, k, True, rows, 2)
        grads = torch.autograd.grad(out, (part, k), upstream[:, :, first:])
        found.append(grads)
    (dq, dk), (short_dq, short_dk) = found
    agreement(dk, short_dk, "dK + dV", "dK + dV")
    expected = torch.cat([torch.zeros_like(q[:, :, :2]), short_dq], dim=2)
    agreement(dq, expected, "dQ", "dQ")


@check(en="float16 is added up in float32", zh="float16 用 float32 累加")
def wide(attempt, draw):
    q = torch.zeros(1, 1, 4000, 4).half()
    k, v = torch.zeros(1, 1, 1, 4).half(), torch.zeros(1, 1, 1, 1).half()
    v.requires_grad_()
    out = attempt.flash_attention(q, k, v, False, draw.choice("rows", [1, 2]) * 1000, 1)
    upstream = torch.full_like(out, 40.0)
    upstream[:, :, 2000:] = -40.0  # dV passes 80000 on its way to 0
    (grad,) = torch.autograd.grad(out, v, upstream)
    agreement(grad, torch.zeros_like(v), "dV", "dV")


@check(en="No weights are kept for the backward", zh="不为反向保留权重")
def kept(attempt, draw):
    x, sizes = draw.normal(1, 1, 128, 2).requires_grad_(), {}
    tile = draw.choice("tile", [32, 64])

    def keep(one):
        sizes[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        out = attempt.flash_attention(x, x, x, False, tile, tile)
    total, allowed = sum(sizes.values()), 8 * 128 * 2 * 8
    if out.requires_grad and total > allowed:
        raise Broken(
            f"{total} bytes are kept for the backward, {allowed} are plenty",
            f"为反向保留了 {total} 字节，{allowed} 字节绰绰有余",
        )


@check(
    en="No tensor of the backward is larger than a tile", zh="反向的张量不超过一个分片"
)
def no_square(attempt, draw):
    x, tile = draw.normal(1, 1, 96, 2).requires_grad_(), draw.choice("tile", [32, 24])
    out = attempt.flash_attention(x, x, x, False, tile, tile)
    largest = largest_bytes(lambda: torch.autograd.grad(out.sum(), x))
    allowed = 8 * max(tile * tile, 96 * 2)
    if largest > allowed:
        raise Broken(
            f"a tensor of {largest} bytes was made, {allowed} are enough",
            f"造出了 {largest} 字节的张量，{allowed} 字节就够",
        )


@check(
    en="Five products a tile, and no tile above the diagonal",
    zh="每片五次乘积，对角线以上一片不算",
)
def work(attempt, draw):
    n = draw.size("tiles a side", 1, 3)
    x = draw.normal(1, 1, 4 * n, 2).requires_grad_()
    for masked, tiles in ((False, n * n), (True, n * (n + 1) // 2)):
        out = attempt.flash_attention(x, x, x, masked, 4, 4)
        flops = count_flops(lambda out=out: torch.autograd.grad(out.sum(), x))
        if flops > tiles * 5 * 2 * 4 * 4 * 2:
            raise Broken(
                f"causal={masked}: {flops} FLOPs, {tiles} tiles take {tiles * 320}",
                f"causal={masked}：用了 {flops} FLOPs，{tiles} 个分片只要 {tiles * 320}",
            )


CHECKS = [one_tile, any_tiles, causal, blind, wide, kept, no_square, work]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    x = torch.randn(1, 2, 512, 32, requires_grad=True)

    def step():
        with torch.enable_grad():
            attempt.flash_attention(x, x, x, True, 128, 128).sum().backward()

    return step


# --8<-- [end:checks]
