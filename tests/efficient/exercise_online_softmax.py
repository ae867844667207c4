"""Exercise: online softmax."""

from snippets.properties.cost import largest_bytes
from snippets.properties.judge import Broken, check
from snippets.properties.kit import agreement, chunked_equals_whole, gradient_flow

# isort: split
# --8<-- [start:checks]
import math

import torch


def scores(draw, T, S):
    """Return scores of which some are -inf, in each row at most all but one."""
    x = draw.normal(T, S) * 5
    x[:, :-1] = x[:, :-1].masked_fill(~draw.mask(T, S - 1), -math.inf)
    return x


@check(en="A block gives its max and its sum", zh="一块给出它的最大值与和")
def one_block(attempt, draw):
    x = draw.normal(draw.size("T", 1, 3), draw.size("S", 1, 5))
    state = attempt.summarize(x)
    agreement(state.max_T, x.amax(1), "the max", "最大值")
    total = torch.logsumexp(x - x.amax(1, keepdim=True), 1).exp()
    agreement(state.sum_T, total, "the sum", "和")


@check(en="Scores far from zero are no problem", zh="得分离零很远也不出错")
def far_from_zero(attempt, draw):
    near = draw.normal(2, draw.size("S", 3, 6))
    for shift in (0.0, 1e4, -1e4):
        x = near + shift
        agreement(
            attempt.online_softmax(x, 2),
            torch.softmax(x, 1),
            f"the softmax of scores around {shift:g}",
            f"{shift:g} 附近的得分，softmax ",
        )


@check(en="-inf may come first", zh="开头可以是 -inf")
def masked_start(attempt, draw):
    x = draw.normal(2, draw.size("S", 2, 6))
    x[:, : x.shape[1] - 1] = -math.inf
    state = attempt.scan(x.split(1, 1))
    agreement(state.max_T, x[:, -1], "the max", "最大值")
    agreement(state.sum_T, torch.ones_like(x[:, 0]), "the sum", "和")


@check(en="A row of nothing but -inf gives zeros", zh="全是 -inf 的行给出零")
def empty_row(attempt, draw):
    x = draw.normal(2, draw.size("S", 1, 5))
    x[0] = -math.inf
    out = attempt.online_softmax(x, draw.size("block", 1, 3))
    agreement(out[0], torch.zeros_like(x[0]), "the empty row", "空行")


@check(en="float16 is summed in float32", zh="float16 用 float32 累加")
def wide_state(attempt, draw):
    x = torch.zeros(1, 70_000, dtype=torch.float16)
    total = attempt.scan(x.split(draw.choice("block", [7000, 3500]), 1)).sum_T
    if total.item() != 70_000:
        raise Broken(
            f"70000 equal scores in float16 have the sum {total.item()}",
            f"70000 个相等的 float16 得分，和却是 {total.item()}",
        )


@check(en="Merging is commutative and associative", zh="合并满足交换律和结合律")
def any_order(attempt, draw):
    T = draw.size("T", 1, 3)
    parts = [scores(draw, T, S) + shift for S, shift in ((3, 0), (2, 9), (1, -9))]
    parts[draw.size("part of nothing but -inf", 0, 2)][:] = -math.inf
    a, b, c = (attempt.summarize(x) for x in parts)
    for state in (
        attempt.merge(attempt.merge(a, b), c),
        attempt.merge(a, attempt.merge(b, c)),
        attempt.merge(c, attempt.merge(b, a)),
    ):
        lse = state.max_T + state.sum_T.log()
        expected = torch.logsumexp(torch.cat(parts, 1), 1)
        agreement(lse, expected, "log of the merged sum", "合并后和的对数")


@check(en="One pass, one block at a time", zh="只读一遍，一次一块")
def one_pass(attempt, draw):
    x, block = draw.normal(2, 512), draw.choice("block", [32, 64])
    blocks = (x[:, start : start + block] for start in range(0, 512, block))
    largest = largest_bytes(lambda: attempt.scan(blocks))
    if largest > 2 * block * 8:
        raise Broken(
            f"blocks of {2 * block * 8} bytes came, a tensor of {largest} was made",
            f"每块只有 {2 * block * 8} 字节，却造出了 {largest} 字节的张量",
        )


@check(en="In blocks equals in one go", zh="分块等于一次算完")
def any_block(attempt, draw):
    x = scores(draw, draw.size("T", 1, 3), draw.size("S", 2, 9))
    chunked_equals_whole(lambda x: torch.softmax(x, 1), attempt.online_softmax, x, draw)


@check(en="Gradients equal PyTorch's", zh="梯度与 PyTorch 一致")
def gradients(attempt, draw):
    x, upstream = draw.normal(2, 5).requires_grad_(), draw.normal(2, 5)
    gradient_flow(lambda x: attempt.online_softmax(x, 2), x)
    ours = torch.autograd.grad((attempt.online_softmax(x, 2) * upstream).sum(), x)
    theirs = torch.autograd.grad((torch.softmax(x, 1) * upstream).sum(), x)
    agreement(ours[0], theirs[0], "the gradient", "梯度")


@check(en="logsumexp equals torch.logsumexp", zh="logsumexp 等于 torch.logsumexp")
def log_of_sum(attempt, draw):
    x = scores(draw, draw.size("T", 1, 3), draw.size("S", 2, 9))
    lse = attempt.logsumexp(attempt.scan(x.split(2, 1)))
    agreement(lse, torch.logsumexp(x, 1), "the log of the sum", "和的对数")


CHECKS = [
    one_block,
    far_from_zero,
    masked_start,
    empty_row,
    wide_state,
    any_order,
    one_pass,
    any_block,
    gradients,
    log_of_sum,
]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    x = torch.randn(64, 8192)
    return lambda: attempt.scan(x.split(512, 1))


# --8<-- [end:checks]
