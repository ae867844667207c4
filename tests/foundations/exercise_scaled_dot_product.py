"""Exercise: scaled dot-product attention."""

from snippets.properties.cost import count_flops
from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import (
    agreement,
    batch_independence,
    causality,
    convexity,
    gradient_flow,
    no_input_mutated,
)

# isort: split
# --8<-- [start:checks]
import math

import torch
import torch.nn.functional as F


def inputs(draw: Draw, dtype=torch.float64):
    """Return q, k, v and a mask in which each query may see the first key."""
    B, H = draw.size("B", 1, 2), draw.size("H", 1, 2)
    T, S = draw.size("T", 1, 4), draw.size("S", 1, 5)
    shapes = ((B, H, T, 4), (B, H, S, 4), (B, H, S, 3))
    mask = draw.mask(B, H, T, S)
    mask[..., 0] = True
    return (*(draw.normal(*shape, dtype=dtype) for shape in shapes), mask)


@check(en="The future changes nothing", zh="后面的输入不影响前面的输出")
def future(attempt, draw):
    T = draw.size("T", 2, 5)
    causal = torch.ones(1, 1, T, T, dtype=torch.bool).tril()
    causality(
        lambda x: attempt.attend(x, x, x, causal), draw.normal(1, 1, T, 4), draw, axis=2
    )


@check(en="A fully masked row is zero", zh="整行被遮时输出为零")
def blind(attempt, draw):
    q, k, v, mask = inputs(draw)
    mask[:, :, -1] = False
    out = attempt.attend(q, k, v, mask)[:, :, -1]
    agreement(
        out, torch.zeros_like(out), "the output of a blind query", "看不到键的查询"
    )


@check(en="Masked positions leak nothing, not even NaN", zh="被遮的位置连 NaN 也不泄漏")
def leak(attempt, draw):
    q, k, v, mask = inputs(draw)
    mask[..., -1] = mask.shape[-1] == 1
    clean = attempt.attend(q, k, v, mask)
    if mask.shape[-1] > 1:
        k[:, :, -1] = v[:, :, -1] = draw.choice("behind the mask", [math.inf, math.nan])
    agreement(attempt.attend(q, k, v, mask), clean, "the output", "输出")


@check(en="Output stays within the values", zh="输出不越出值的范围")
def hull(attempt, draw):
    q, k, v, mask = inputs(draw)
    convexity(lambda v: attempt.attend(q, k, v, mask), v, draw)


@check(en="Samples do not mix", zh="样本之间互不影响")
def samples(attempt, draw):
    x = draw.normal(2, 1, draw.size("T", 1, 4), 4)
    batch_independence(lambda x: attempt.attend(x, x, x), x, draw)


@check(en="Large scores do not overflow in float16", zh="得分很大时 float16 不溢出")
def overflow(attempt, draw):
    x = torch.full((1, 1, 2, 128), 32.0, dtype=torch.float16)
    out = attempt.attend(x, x, x)
    agreement(out, x, "the average of equal values", "相同值的平均")


@check(en="Gradients are finite", zh="梯度有限")
def gradients(attempt, draw):
    q, k, v = (draw.normal(1, 2, 4, 3) for _ in range(3))
    mask = draw.mask(1, 2, 4, 4)
    mask[..., 0] = True
    gradient_flow(lambda q, k, v: attempt.attend(q, k, v, mask), q, k, v)
    mask[:, :, 1] = False
    blind = q.clone().requires_grad_()
    (grad,) = torch.autograd.grad(attempt.attend(blind, k, v, mask).sum(), blind)
    if not grad.isfinite().all():
        raise Broken(
            "a query that sees no key makes the gradient NaN",
            "有查询看不到任何键，梯度变成了 NaN",
        )


@check(en="Inputs stay as they were", zh="不改动输入")
def unmutated(attempt, draw):
    *three, mask = inputs(draw)
    no_input_mutated(lambda q, k, v: attempt.attend(q, k, v, mask), *three)


@check(en="Two matrix products, no more", zh="只做两次矩阵乘法")
def work(attempt, draw):
    x = torch.randn(1, 1, 16, 8)
    came, enough = count_flops(lambda: attempt.attend(x, x, x)), 4 * 16 * 16 * 8
    if came > enough:
        raise Broken(
            f"{came} FLOPs, {enough} are enough", f"用了 {came} FLOPs，{enough} 就够"
        )


@check(en="Equals PyTorch's attention", zh="等于 PyTorch 的注意力")
def pytorch(attempt, draw):
    q, k, v, mask = inputs(draw)
    expected = F.scaled_dot_product_attention(q, k, v, mask)
    agreement(attempt.attend(q, k, v, mask), expected, "the output", "输出")
    expected = F.scaled_dot_product_attention(q, k, v)
    agreement(
        attempt.attend(q, k, v), expected, "without mask, the output", "无掩码的输出"
    )


CHECKS = [
    unmutated, future, blind, leak, hull, samples, overflow, gradients, work, pytorch,
]  # fmt: skip


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    x = torch.randn(1, 8, 512, 64)
    return lambda: attempt.attend(x, x, x)


# --8<-- [end:checks]
