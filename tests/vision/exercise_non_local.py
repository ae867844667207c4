"""Exercise: the non-local block."""

from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import (
    agreement,
    batch_independence,
    gradient_flow,
    no_input_mutated,
)

# isort: split
# --8<-- [start:checks]
import torch
import torch.nn.functional as F


def block_and_map(attempt, draw: Draw):
    """Return the attempt's block in float64, its last layer no longer zero, and a map."""
    torch.manual_seed(0)
    block = attempt.NonLocal(4, 3).double()
    torch.nn.init.normal_(block.last.weight)
    X, Y = draw.size("X", 1, 3), draw.size("Y", 1, 3)
    return block, draw.normal(draw.size("B", 1, 2), 4, X, Y)


@check(en="A new block changes nothing", zh="新建的模块不改变输入")
def new(attempt, draw):
    block, x = attempt.NonLocal(4).double(), draw.normal(1, 4, 2, 3)
    agreement(block(x), x, "the output of a new block", "新模块的输出")


@check(en="Weights of a query sum to one", zh="每个查询的权重之和为一")
def rows(attempt, draw):
    block, x = block_and_map(attempt, draw)
    sums = block.weight(x).sum(-1)
    P = x.shape[2] * x.shape[3]
    agreement(sums, torch.ones(len(x), P).double(), "the sum", "权重之和")


@check(en="Samples do not mix", zh="样本之间互不影响")
def samples(attempt, draw):
    block, x = block_and_map(attempt, draw)
    batch_independence(block, torch.cat([x, x.flip(1) + 1]), draw)


@check(en="Permuting positions permutes the output", zh="打乱位置，输出随之打乱")
def places(attempt, draw):
    block, x = block_and_map(attempt, draw)
    turned = x.flip(2).transpose(2, 3)
    expected = block(x).flip(2).transpose(2, 3)
    agreement(block(turned), expected, "on a turned map the output", "旋转后的输出")


@check(en="A far corner is seen in one layer", zh="一层就能看到对角")
def reach(attempt, draw):
    block, _ = block_and_map(attempt, draw)
    x = draw.normal(1, 4, 3, 3).requires_grad_()
    (grad,) = torch.autograd.grad(block(x)[0, :, 0, 0].sum(), x)
    if not (grad.abs().sum(1) > 0).all():
        raise Broken(
            "the first corner does not depend on every position",
            "左上角没有依赖所有位置",
        )


@check(en="Gradients reach everything", zh="每个参数都有梯度")
def gradients(attempt, draw):
    block, _ = block_and_map(attempt, draw)
    block.phi.bias = None  # it shifts all scores of a row: no gradient there
    gradient_flow(block, draw.normal(2, 4, 2, 2))


@check(en="Inputs stay as they were", zh="不改动输入")
def unmutated(attempt, draw):
    block, x = block_and_map(attempt, draw)
    no_input_mutated(block, x)


@check(
    en="Equals PyTorch's attention, unscaled, plus x",
    zh="等于不缩放的 PyTorch 注意力加上 x",
)
def pytorch(attempt, draw):
    block, x = block_and_map(attempt, draw)
    q, k, v = (f(x).flatten(2).mT for f in (block.theta, block.phi, block.g))
    read = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    expected = x + block.last(read.mT.reshape(len(x), -1, *x.shape[2:]))
    agreement(block(x), expected, "the output", "输出")


CHECKS = [new, unmutated, rows, samples, places, reach, gradients, pytorch]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    torch.manual_seed(0)
    block, x = attempt.NonLocal(32), torch.randn(2, 32, 20, 20)
    return lambda: block(x)


# --8<-- [end:checks]
