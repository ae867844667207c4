"""Exercise: multi-head latent attention, expanded and absorbed."""

from snippets.properties.cost import largest_bytes
from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import (
    agreement,
    batch_independence,
    cached_equals_full,
    causality,
    gap,
)

# isort: split
# --8<-- [start:checks]
import math

import torch
import torch.nn.functional as F


def drawn_inputs(draw: Draw, K: int, V: int, R: int, S: int = 5):
    """Return queries, rotated queries, latents, up_k and up_v of H heads."""
    H, T, U = draw.size("heads", 1, 3), draw.size("T", 1, 3), 2
    shapes = (2, H, T, K), (2, H, T, U), (2, S, R + U), (H, K, R), (H, V, R)
    return [draw.normal(*shape) for shape in shapes]


def drawn_layer(attempt, draw: Draw):
    """Return a layer of 2 heads of size 3 + 2 and rank 4, and an input for it."""
    torch.manual_seed(0)
    layer = attempt.LatentAttention(6, 2, 3, 2, 4).double()
    with torch.no_grad():
        layer.norm.weight.uniform_(0.5, 1.5)
    return layer, draw.normal(2, draw.size("T", 2, 6), 6)


@check(en="Scores have the scale of the trained model", zh="得分的缩放与训练时相同")
def scale(attempt, draw):
    K, U, R = draw.size("K", 1, 4), 2, draw.size("R", 2, 6)
    queries = torch.zeros(1, 1, 1, K).double(), torch.ones(1, 1, 1, U).double()
    latent = torch.zeros(1, 2, R + U).double()
    latent[0, 1, 0] = 1  # the value of position 1 is 1, that of position 0 is 0
    latent[0, 1, R:] = 1  # its score is U before scaling, the other is 0
    up_k, up_v = torch.zeros(1, K, R).double(), torch.ones(1, 1, R).double()
    for form in (attempt.expanded_attend, attempt.absorbed_attend):
        weight = form(*queries, latent, up_k, up_v).item()
        score = math.log(weight / (1 - weight))
        size = (U / score) ** 2
        if abs(size - (K + U)) > 1e-6:
            raise Broken(
                f"with K = {K}, U = {U}, R = {R}, {form.__name__} divides scores by "
                f"the root of {size:.3g}",
                f"K = {K}、U = {U}、R = {R} 时，{form.__name__} 的得分除以了 {size:.3g} "
                "的平方根",
            )


@check(en="Expanded: each head is plain attention", zh="展开形式：每个头都是普通注意力")
def rebuilt(attempt, draw):
    q, q_rope, kv, up_k, up_v = drawn_inputs(draw, K=4, V=3, R=5)
    mask = draw.mask(2, q.shape[1], q.shape[2], 5)
    out = attempt.expanded_attend(q, q_rope, kv, up_k, up_v, mask)
    for h in range(len(up_k)):
        c, shared = kv[..., :5], kv[..., 5:]
        expected = F.scaled_dot_product_attention(
            torch.cat([q[:, h], q_rope[:, h]], -1),
            torch.cat([c @ up_k[h].T, shared], -1),
            c @ up_v[h].T,
            mask[:, h],
        )
        agreement(out[:, h], expected, f"head {h}", f"第 {h} 个头")


@check(en="Absorbed equals expanded", zh="吸收形式等于展开形式")
def absorbed(attempt, draw):
    size = draw.size("K = V = R", 2, 4)
    inputs = drawn_inputs(draw, size, size, size)
    mask = draw.mask(2, *inputs[0].shape[1:3], 5)
    expected = attempt.expanded_attend(*inputs, mask)
    found = attempt.absorbed_attend(*inputs, mask)
    agreement(found, expected, "the absorbed form", "吸收形式")


@check(en="Nothing leaks from behind the mask", zh="掩码后面什么都不会漏出来")
def hidden(attempt, draw):
    inputs = drawn_inputs(draw, K=4, V=3, R=5)
    mask = torch.ones(2, *inputs[0].shape[1:3], 5, dtype=torch.bool)
    mask[..., 4] = False
    for form in (attempt.expanded_attend, attempt.absorbed_attend):
        clean = form(*inputs, mask)
        spoilt = [x.clone() for x in inputs]
        spoilt[2][:, 4] = draw.choice("hidden", [math.nan, math.inf])
        leaves = [x.requires_grad_() for x in spoilt]
        out = form(*leaves, mask)
        agreement(out, clean, f"{form.__name__}, masked", f"{form.__name__} 带掩码")
        grads = torch.autograd.grad(out.square().sum(), leaves)
        if not all(grad.isfinite().all() for grad in grads):
            raise Broken(
                f"{form.__name__}: NaN or Inf behind the mask reaches a gradient",
                f"{form.__name__}：掩码后面的 NaN 或 Inf 传进了梯度",
            )


@check(en="Absorbed rebuilds no head", zh="吸收形式不还原任何一个头")
def work(attempt, draw):
    S = draw.size("S", 200, 300)
    shapes = (1, 8, 1, 16), (1, 8, 1, 8), (1, S, 40), (8, 16, 32), (8, 16, 32)
    inputs = [draw.normal(*shape) for shape in shapes]
    largest = largest_bytes(lambda: attempt.absorbed_attend(*inputs))
    if largest > 1.1 * inputs[2].nbytes:
        raise Broken(
            f"a tensor of {largest} bytes is made, the latents take {inputs[2].nbytes}",
            f"生成了 {largest} 字节的张量，潜在向量本身只有 {inputs[2].nbytes} 字节",
        )


@check(en="The cache holds R + U numbers a token", zh="每个词元只缓存 R + U 个数")
def small(attempt, draw):
    layer, _ = drawn_layer(attempt, draw)
    B, capacity = draw.size("B", 1, 3), draw.size("capacity", 1, 5)
    held = sum(
        one.numel()
        for one in vars(layer.new_cache(B, capacity)).values()
        if isinstance(one, torch.Tensor)
    )
    if held > (4 + 2) * B * capacity:
        raise Broken(
            f"{held / (B * capacity):g} numbers a token are held, {4 + 2} are enough",
            f"每个词元占了 {held / (B * capacity):g} 个数，{4 + 2} 个就够",
        )


@check(en="The future changes nothing", zh="后面的输入不影响前面的输出")
def future(attempt, draw):
    layer, x = drawn_layer(attempt, draw)

    def filling(x):
        with torch.no_grad():
            return layer(x, layer.new_cache(len(x), x.shape[1]))

    causality(layer, x, draw)
    causality(filling, x, draw)


@check(en="In pieces equals in one pass", zh="分段等于一次算完")
def cached(attempt, draw):
    layer, x = drawn_layer(attempt, draw)

    def step(piece, cache):
        cache = layer.new_cache(2, 6) if cache is None else cache
        return layer(piece, cache), cache

    with torch.no_grad():
        cached_equals_full(layer, step, x, draw)
        batch_independence(lambda x: layer(x, layer.new_cache(len(x), 6)), x, draw)


@check(en="Only the decoupled part turns", zh="只有解耦出来的部分带位置")
def decoupled(attempt, draw):
    layer, _ = drawn_layer(attempt, draw)
    with torch.no_grad():  # no rotated key, no rotated query: order must not matter
        layer.to_latent.weight[4:] = 0
    x = draw.normal(1, 3, 6)
    swapped = x[:, [1, 0, 2]]
    if gap(layer(x)[:, -1], layer(swapped)[:, -1]) > 1e-9:
        raise Broken(
            "without the rotated key, the order of earlier tokens still matters",
            "去掉旋转的键以后，前面词元的顺序仍然影响结果",
        )


@check(en="The layer agrees with PyTorch", zh="整层与 PyTorch 一致")
def reference(attempt, draw):
    layer, x = drawn_layer(attempt, draw)
    T = x.shape[1]
    turn = torch.polar(torch.ones(T).double(), torch.arange(T).double())
    low = layer.to_latent(x)
    c, shared = layer.norm(low[..., :4]), low[..., 4:]
    shared = torch.view_as_real(torch.view_as_complex(shared.contiguous()) * turn)
    outputs = []
    for h, q in enumerate(layer.to_q(x).split(5, -1)):
        still, moving = q[..., :3], q[..., 3:]
        moving = torch.view_as_real(torch.view_as_complex(moving.contiguous()) * turn)
        outputs.append(
            F.scaled_dot_product_attention(
                torch.cat([still, moving], -1),
                torch.cat([c @ layer.up_HKR[h].T, shared], -1),
                c @ layer.up_HVR[h].T,
                is_causal=True,
            )
        )
    expected = layer.to_out(torch.cat(outputs, -1))
    agreement(layer(x), expected, "the layer's output", "层的输出")


CHECKS = [
    rebuilt,
    absorbed,
    scale,
    hidden,
    work,
    small,
    future,
    cached,
    decoupled,
    reference,
]


def workload(attempt):
    """Return one decoding step of 16 heads against 2048 latents."""
    torch.manual_seed(0)
    shapes = (
        (1, 16, 1, 64),
        (1, 16, 1, 32),
        (1, 2048, 160),
        (16, 64, 128),
        (16, 64, 128),
    )
    inputs = [torch.randn(shape) for shape in shapes]
    return lambda: attempt.absorbed_attend(*inputs)


# --8<-- [end:checks]
