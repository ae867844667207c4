"""Exercise: multiplicative attention."""

from snippets.properties.cost import count_flops, largest_bytes
from snippets.properties.judge import Broken, check
from snippets.properties.kit import agreement, gradient_flow

# isort: split
# --8<-- [start:checks]
import math

import torch
import torch.nn.functional as F


def drawn_three(draw, T=None, S=None, size=4):
    """Return queries, keys, values, and which keys count: at least the first."""
    T, S = T or draw.size("T", 1, 4), S or draw.size("S", 1, 6)
    keep = torch.arange(S).expand(2, S) < draw.size("length without padding", 1, S)
    return *(draw.normal(2, n, size) for n in (T, S, S)), keep


def every_key(attempt, draw):
    """Return calls of both forms that look at all keys, as f(q, k, v, keep)."""

    def wide(q, k, v, keep):
        place = torch.zeros(q.shape[:2])
        return attempt.attend_near(attempt.dot, q, k, v, keep, place, k.shape[1])[0]

    def everywhere(q, k, v, keep):
        return attempt.attend_globally(attempt.dot, q, k, v, keep)[0]

    return draw.choice("form", [everywhere, wide])


@check(en="dot is q·k, without a scale", zh="dot 就是 q·k，不缩放")
def dot_score(attempt, draw):
    q, k, _, _ = drawn_three(draw)
    expected = [[[sum(a * b) for b in k[n]] for a in q[n]] for n in range(2)]
    agreement(attempt.dot(q, k), torch.tensor(expected).to(q), "the score", "得分")


@check(en="general is q·W k", zh="general 就是 q·W k")
def general_score(attempt, draw):
    q, k, _, _ = drawn_three(draw)
    q, weight = q[..., :3], draw.normal(3, 4)
    expected = torch.stack([a @ weight @ b.mT for a, b in zip(q, k, strict=True)])
    agreement(attempt.general(q, k, weight), expected, "the score", "得分")


@check(en="concat is v·tanh(W [q; k])", zh="concat 就是 v·tanh(W [q; k])")
def concat_score(attempt, draw):
    q, k, _, _ = drawn_three(draw)
    q, weight, v = q[..., :3], draw.normal(5, 7), draw.normal(5)
    T, S = q.shape[1], k.shape[1]
    left, right = q.unsqueeze(2).expand(2, T, S, 3), k.unsqueeze(1).expand(2, T, S, 4)
    expected = torch.tanh(torch.cat([left, right], dim=-1) @ weight.mT) @ v
    agreement(attempt.concat(q, k, weight, v), expected, "the score", "得分")


@check(en="Weights over all keys sum to one", zh="对所有键的权重之和为一")
def sums(attempt, draw):
    q, k, v, keep = drawn_three(draw)
    _, weight = attempt.attend_globally(attempt.dot, q, k, v, keep)
    one = torch.ones(q.shape[:2]).to(q)
    agreement(weight.sum(-1), one, "the sum of the weights", "权重之和")


@check(
    en="Padding changes nothing, in all keys or a window",
    zh="填充不影响结果，全局与窗口都一样",
)
def padding(attempt, draw):
    q, k, v, keep = drawn_three(draw)
    f, n = every_key(attempt, draw), int(keep[0].sum())
    filler = draw.choice("padding", [100.0, math.inf, math.nan])
    k, v = (x.masked_fill(~keep.unsqueeze(-1), filler) for x in (k, v))
    short = f(q, k[:, :n], v[:, :n], keep[:, :n])
    agreement(f(q, k, v, keep), short, "the output", "输出")


@check(en="Padding of NaN reaches no gradient", zh="填充里的 NaN 不进入梯度")
def clean(attempt, draw):
    q, k, v, keep = drawn_three(draw)
    f = every_key(attempt, draw)
    k, v = (x.masked_fill(~keep.unsqueeze(-1), math.nan) for x in (k, v))
    q.requires_grad_()
    (grad,) = torch.autograd.grad(f(q, k, v, keep).sum(), q)
    if not grad.isfinite().all():
        raise Broken("the gradient of the query is not finite", "查询的梯度不是有限值")


@check(
    en="A window holds the keys at most w away, both ends",
    zh="窗口里是距离不超过 w 的键，含两端",
)
def window(attempt, draw):
    S, w = draw.size("S", 1, 6), draw.size("w", 0, 3)
    place = draw.choice("place", [0.0, 2.0, 2.5, 3.2, -1.5, 6.7])
    keep = torch.ones(1, S, dtype=torch.bool)
    index, inside = attempt.near(torch.tensor([[place]]), keep, w)
    came = sorted(index[0, 0][inside[0, 0]].tolist())
    wanted = [s for s in range(S) if abs(s - place) <= w]
    if came != wanted:
        raise Broken(
            f"found keys {came}, expected {wanted}", f"得到的键是 {came}，应为 {wanted}"
        )


@check(en="local-m looks around its own position", zh="local-m 看自己位置的周围")
def local_m(attempt, draw):
    q, k, v, keep = drawn_three(draw)
    T, S, w = q.shape[1], k.shape[1], draw.size("w", 0, 3)
    place = attempt.monotonic_places(2, T)
    out, _ = attempt.attend_near(attempt.dot, q, k, v, keep, place, w)
    band = (torch.arange(S) - torch.arange(T)[:, None]).abs() <= w
    mask = band & keep.unsqueeze(1)
    expected = F.scaled_dot_product_attention(q, k, v, mask, scale=1.0)
    agreement(out, expected, "the output", "输出")


@check(
    en="local-p predicts its place from the real length",
    zh="local-p 按真实长度预测位置",
)
def places(attempt, draw):
    q, _, _, keep = drawn_three(draw)
    weight, v = draw.normal(3, 4), draw.normal(3)
    came = attempt.predicted_places(q, keep, weight, v)
    share = 1 / (1 + torch.exp(-(torch.tanh(q @ weight.mT) @ v)))
    agreement(came, keep[0].sum() * share, "the place", "位置")


@check(en="The Gaussian comes after the softmax", zh="高斯函数乘在 softmax 之后")
def gaussian(attempt, draw):
    q, k, v, keep = drawn_three(draw)
    place = draw.choice("place", [1.0, 0.3, 2.6]) + torch.zeros(q.shape[:2])
    plain = attempt.attend_near(attempt.dot, q, k, v, keep, place, 2)[1]
    index, _ = attempt.near(place, keep, 2)
    _, weight = attempt.attend_near(attempt.dot, q, k, v, keep, place, 2, 1.5)
    away = index - place.unsqueeze(-1)
    expected = plain * torch.exp(-(away**2) / (2 * 1.5**2))
    agreement(weight, expected, "the weight", "权重")


@check(en="Keys outside the window are never scored", zh="窗口外的键从不打分")
def work(attempt, draw):
    q, k, v, keep = drawn_three(draw, T=64, S=64)
    place = attempt.monotonic_places(2, 64)
    call = lambda: attempt.attend_near(attempt.dot, q, k, v, keep, place, 2)  # noqa: E731
    came, enough = count_flops(call), 2 * 4 * 64 * 5 * 4
    if came > enough:
        raise Broken(
            f"5 keys a query take {came} FLOPs, {enough} are enough",
            f"每个查询 5 个键，用了 {came} FLOPs，{enough} 就够",
        )


@check(en="concat never concatenates all pairs", zh="concat 不把所有的对都拼接出来")
def memory(attempt, draw):
    q, k, _, _ = drawn_three(draw, T=32, S=32)
    weight, v = draw.normal(2, 8), draw.normal(2)
    came = largest_bytes(lambda: attempt.concat(q, k, weight, v))
    enough = 8 * 2 * 32 * 32 * 2
    if came > enough:
        raise Broken(
            f"the largest tensor has {came} bytes, {enough} are enough",
            f"最大的张量有 {came} 字节，{enough} 就够",
        )


@check(en="The state is tanh(W [context; query])", zh="新状态是 tanh(W [上下文; 查询])")
def state(attempt, draw):
    q, out = draw.normal(2, 3, 4), draw.normal(2, 3, 2)
    weight = 2 * draw.normal(4, 6)
    expected = (out @ weight[:, :2].mT + q @ weight[:, 2:].mT).tanh()
    came = attempt.attentional_state(out, q, weight)
    agreement(came, expected, "the state", "状态")


@check(en="Gradients reach what predicts the place", zh="预测位置的参数有梯度")
def gradients(attempt, draw):
    keep = torch.ones(2, 6, dtype=torch.bool)

    def f(q, k, v, weight, out):
        place = attempt.predicted_places(q, keep, weight, out)
        return attempt.attend_near(attempt.dot, q, k, v, keep, place, 2, 1.0)[0]

    shapes = ((2, 3, 4), (2, 6, 4), (2, 6, 2), (5, 4), (5,))
    gradient_flow(f, *(draw.normal(*shape) for shape in shapes))


CHECKS = [
    dot_score,
    general_score,
    concat_score,
    sums,
    padding,
    clean,
    window,
    local_m,
    places,
    gaussian,
    work,
    memory,
    state,
    gradients,
]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    q, k, v = torch.randn(3, 4, 512, 32)
    keep, place = torch.rand(4, 512) < 0.9, attempt.monotonic_places(4, 512)
    return lambda: attempt.attend_near(attempt.dot, q, k, v, keep, place, 10, 5.0)


# --8<-- [end:checks]
