"""Exercise: hard attention."""

from snippets.properties.cost import count_flops, largest_bytes
from snippets.properties.judge import Broken, check
from snippets.properties.kit import agreement, no_input_mutated

# isort: split
# --8<-- [start:checks]
import math

import torch


def drawn_scores(draw, T=None):
    """Return scores (2, T, S), values, a mask whose rows see something; fix the seed."""
    torch.manual_seed(draw.size("seed", 0, 9))
    T, S = T or draw.size("T", 1, 4), draw.size("S", 1, 5)
    mask = draw.mask(2, T, S)
    mask[..., 0] = True
    return draw.normal(2, T, S), draw.normal(2, S, 3), mask


def frequent(choice, weight):
    """Expect a column of draws (N, S) to have frequencies near the weights (S)."""
    N, came = len(choice), choice.double().mean(0)
    error = (weight * (1 - weight) / N).sqrt()
    if not ((came - weight).abs() <= 6 * error + 1 / N).all():
        raise Broken(
            f"frequencies {[round(x, 3) for x in came.tolist()]}, "
            f"weights {[round(x, 3) for x in weight.tolist()]}",
            f"频率是 {[round(x, 3) for x in came.tolist()]}，"
            f"权重是 {[round(x, 3) for x in weight.tolist()]}",
        )


def squares(out):
    """Return a loss (B, T) that is not linear in the output."""
    return (out - 0.5).square().sum(-1)


@check(
    en="Each choice is one key, the output its value", zh="只选一个键，输出就是它的值"
)
def one_key(attempt, draw):
    score, v, mask = drawn_scores(draw)
    out, choice, _ = attempt.hard_attend(score, v, mask)
    one = torch.ones(score.shape[:2]).to(v)
    agreement(choice.sum(-1), one, "the sum of a choice", "一次选择之和")
    agreement(choice.amax(-1), one, "the largest entry", "选择的最大值")
    agreement(out, torch.einsum("bts,bsv->btv", choice, v), "the output", "输出")


@check(en="Draws are as frequent as the weights say", zh="抽中的频率等于权重")
def frequency(attempt, draw):
    torch.manual_seed(draw.size("seed", 0, 9))
    score = 1.5 * draw.normal(1, 1, 4)
    _, choice, _ = attempt.hard_attend(score.expand(1, 4000, 4), draw.normal(1, 4, 2))
    frequent(choice[0], score[0, 0].softmax(-1))


@check(en="The log-probability is that of the choice", zh="对数概率就是所选那个键的")
def log_chance(attempt, draw):
    score, v, mask = drawn_scores(draw)
    _, choice, came = attempt.hard_attend(score, v, mask)
    log_weight = score.masked_fill(~mask, -1e300).log_softmax(-1)
    agreement(
        came, log_weight[choice.bool()].view_as(came), "the log-probability", "对数概率"
    )


@check(
    en="What is masked is never drawn, nor does NaN leak",
    zh="被遮的键从不抽中，NaN 也不泄漏",
)
def hidden(attempt, draw):
    score, v, mask = drawn_scores(draw, T=50)
    mask[..., -1] = mask.shape[-1] == 1
    if mask.shape[-1] > 1:
        v[:, -1] = score[..., -1] = draw.choice("behind the mask", [math.nan, math.inf])
    out, choice, _ = attempt.hard_attend(score, v, mask)
    agreement(
        choice * ~mask, 0.0 * choice, "the choice of masked keys", "对被遮键的选择"
    )
    agreement(out * 0, torch.zeros_like(out), "the output", "输出")


@check(en="A query that sees no key gets zeros", zh="看不到任何键的查询得到零")
def blind(attempt, draw):
    score, v, mask = drawn_scores(draw)
    mask[:, -1] = False
    for part in attempt.hard_attend(score, v, mask)[:2]:
        last = part[:, -1]
        agreement(last, torch.zeros_like(last), "what it gets", "它得到的")


@check(en="Values not drawn cost nothing", zh="没抽中的值不花计算")
def work(attempt, draw):
    score, v = torch.randn(1, 8, 16), torch.randn(1, 16, 32)
    call = lambda: attempt.hard_attend(score, v)  # noqa: E731
    if came := count_flops(call):
        raise Broken(f"{came} FLOPs, 0 are enough", f"用了 {came} FLOPs，一次也不需要")
    if (came := largest_bytes(call)) > 8 * 8 * 32:
        raise Broken(
            f"a tensor of {came} bytes is made, {8 * 8 * 32} are enough",
            f"造出了 {came} 字节的张量，{8 * 8 * 32} 字节就够",
        )


@check(
    en="REINFORCE: the gradient of a draw is (L − b) ∇ log α",
    zh="REINFORCE：一次抽样的梯度是 (L − b) ∇ log α",
)
def score_gradient(attempt, draw):
    score, v, _ = drawn_scores(draw)
    score.requires_grad_()
    b = draw.choice("baseline", [0.0, 2.0])
    surrogate, loss = attempt.reinforce(score, v, squares, b)
    # The loss that came tells which key was drawn: all losses differ.
    choice = (loss.unsqueeze(-1) - squares(v).unsqueeze(1)).abs() < 1e-9
    one = torch.ones(score.shape[:2])
    agreement(
        choice.sum(-1) * one, one, "the loss of one key's value", "单个键的值的损失"
    )
    if not surrogate.requires_grad:
        raise Broken("no gradient reaches the scores", "得分没有梯度")
    (came,) = torch.autograd.grad(surrogate.sum(), score)
    expected = (loss - b).unsqueeze(-1) * (choice.double() - score.softmax(-1))
    agreement(came, expected, "the gradient at the scores", "得分的梯度")


@check(
    en="REINFORCE: the value drawn gets the gradient of its loss",
    zh="REINFORCE：抽中的值得到其损失的梯度",
)
def value_gradient(attempt, draw):
    score, v, _ = drawn_scores(draw)
    v.requires_grad_()
    surrogate, loss = attempt.reinforce(score, v, squares, 1.0)
    choice = (loss.unsqueeze(-1) - squares(v).unsqueeze(1)).abs() < 1e-9
    if not surrogate.requires_grad:
        raise Broken("no gradient reaches the values", "值没有梯度")
    (came,) = torch.autograd.grad(surrogate.sum(), v)
    expected = choice.sum(1).unsqueeze(-1) * 2 * (v - 0.5)
    agreement(came, expected, "the gradient at the values", "值的梯度")
    if loss.requires_grad:
        raise Broken("the loss to read has a gradient", "供读取的损失还带着梯度")


@check(
    en="Straight-through draws one key, as frequent as its weight",
    zh="直通估计只抽一个键，频率等于权重",
)
def gumbel(attempt, draw):
    torch.manual_seed(draw.size("seed", 0, 9))
    score, temperature = 1.5 * draw.normal(1, 1, 4), draw.choice("τ", [1.0, 0.3, 2.0])
    choice = attempt.gumbel_choice(score.expand(1, 4000, 4), temperature)[0]
    one = torch.ones(4000).to(choice)
    agreement(choice.amax(-1), one, "the largest entry", "选择的最大值")
    agreement(choice.sum(-1), one, "the sum of a choice", "一次选择之和")
    frequent(choice, score[0, 0].softmax(-1))


@check(
    en="Straight-through: backward it is a softmax at temperature τ",
    zh="直通估计：反向按温度 τ 的 softmax 求导",
)
def slope(attempt, draw):
    torch.manual_seed(draw.size("seed", 0, 9))
    score, tau = draw.normal(1, 1, 3) / 2, draw.choice("τ", [1.0, 0.7, 2.0])
    score.requires_grad_()
    choice = attempt.gumbel_choice(score, tau).flatten()
    if not choice.requires_grad:
        raise Broken("no gradient reaches the scores", "得分没有梯度")
    J = torch.stack(
        [torch.autograd.grad(x, score, retain_graph=True)[0].flatten() for x in choice]
    )
    # Off the diagonal, a softmax p at temperature τ has the slopes -p_r p_s / τ.
    a, b, c = -tau * J[0, 1], -tau * J[0, 2], -tau * J[1, 2]
    p = torch.stack([(a * b / c).sqrt(), (a * c / b).sqrt(), (b * c / a).sqrt()])
    agreement(J, (p.diag() - p.outer(p)) / tau, "the slope", "导数")
    agreement(p.sum(), torch.tensor(1.0).to(p), "the sum of probabilities", "概率之和")
    if p.argmax() != choice.argmax():
        raise Broken(
            "forward and backward use different draws", "前向与反向用的不是同一次抽样"
        )


@check(
    en="Straight-through: the loss is that of the value drawn",
    zh="直通估计：损失是抽中那个值的",
)
def drawn_loss(attempt, draw):
    score, v, _ = drawn_scores(draw)
    score.requires_grad_()
    loss, read = attempt.straight_through(score, v, squares)
    agreement(loss, read, "the loss to differentiate", "用来求导的损失")
    nearest = (read.unsqueeze(-1) - squares(v).unsqueeze(1)).abs().amin(-1)
    agreement(nearest, 0 * nearest, "the loss of one key's value", "单个键的值的损失")
    if read.requires_grad or not loss.requires_grad:
        raise Broken(
            "the first loss needs a gradient, the second none",
            "第一个损失要有梯度，第二个不要",
        )


@check(en="Inputs stay as they were", zh="不改动输入")
def unmutated(attempt, draw):
    score, v, mask = drawn_scores(draw)
    no_input_mutated(attempt.hard_attend, score, v, mask)


CHECKS = [
    one_key,
    frequency,
    log_chance,
    hidden,
    blind,
    work,
    score_gradient,
    value_gradient,
    gumbel,
    slope,
    drawn_loss,
    unmutated,
]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    score, v = torch.randn(4, 256, 256), torch.randn(4, 256, 64)
    return lambda: attempt.hard_attend(score, v)


# --8<-- [end:checks]
