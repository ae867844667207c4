"""Exercise: differential attention."""

from snippets.properties.cost import count_flops
from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import agreement, causality, gradient_flow

# isort: split
# --8<-- [start:checks]
import math

import torch


def layer_of(attempt, draw: Draw):
    """Return the attempt's layer in float64 with λ far from its beginning, and H, K."""
    H, K = draw.size("heads", 1, 3), draw.size("K", 1, 3)
    torch.manual_seed(0)
    number = draw.size("layer", 1, 4)
    layer = attempt.DifferentialAttention(2 * H * K, H, number).double()
    with torch.no_grad():
        layer.share_q.copy_(draw.normal(2, K))
        layer.share_k.copy_(draw.normal(2, K))
    return layer, number, H, K


def two_maps(q, k, mask=None):
    """Return both softmax maps, from scores masked with -inf."""
    maps = []
    for a, b in zip(q.chunk(2, -1), k.chunk(2, -1), strict=True):
        score = a @ b.mT / math.sqrt(a.shape[-1])
        if mask is not None:
            score = score.masked_fill(~mask, -math.inf)
        maps.append(score.softmax(-1))
    return maps


@check(en="λ_init of each layer", zh="各层的 λ_init")
def schedule(attempt, draw: Draw):
    number = draw.size("layer", 1, 40)
    right = 0.8 - 0.6 * math.exp(-0.3 * (number - 1))
    came = torch.tensor(float(attempt.first_share(number)))
    agreement(came, torch.tensor(right), "λ_init", "λ_init")


@check(en="λ from its four vectors", zh="由四个向量算出 λ")
def shares(attempt, draw: Draw):
    layer, number, *_ = layer_of(attempt, draw)
    grown = (layer.share_q * layer.share_k).sum(1).exp()
    right = grown[0] - grown[1] + 0.8 - 0.6 * math.exp(-0.3 * (number - 1))
    agreement(layer.share(), right, "λ", "λ")


@check(en="Rows of weights sum to 1 − λ", zh="每行权重之和为 1 − λ")
def sums(attempt, draw: Draw):
    T, share = draw.size("T", 1, 4), draw.choice("λ", [0.0, 0.3, 1.0])
    q, k = draw.normal(1, 2, T, 4), draw.normal(1, 2, 5, 4)
    eye = torch.eye(5, dtype=torch.float64).expand(1, 2, 5, 5)
    weight = attempt.differential(q, k, eye, share)
    right = torch.full((1, 2, T), 1 - share, dtype=torch.float64)
    agreement(weight.sum(-1), right, "a row's sum", "每行之和")


@check(en="The first map minus a share of the second", zh="第一张图减去第二张的一部分")
def maps(attempt, draw: Draw):
    H, K = draw.size("heads", 1, 2), draw.size("K", 1, 3)
    T, S = draw.size("T", 1, 4), draw.size("S", 1, 4)
    q, k, v = (draw.normal(2, H, n, 2 * K) for n in (T, S, S))
    mask = draw.mask(2, H, T, S)
    mask[..., 0] = True
    first, second = two_maps(q, k, mask)
    right = (first - 0.6 * second) @ v
    agreement(attempt.differential(q, k, v, 0.6, mask), right)


@check(en="The future changes nothing", zh="后面的输入不影响前面的输出")
def future(attempt, draw: Draw):
    layer, _, H, K = layer_of(attempt, draw)
    T = draw.size("T", 2, 5)
    mask = torch.ones(1, T, T, dtype=torch.bool).tril()
    causality(lambda x: layer(x, mask), draw.normal(1, T, 2 * H * K), draw)


@check(en="Queries without keys give zeros", zh="看不到键的查询输出零")
def blind(attempt, draw: Draw):
    layer, _, H, K = layer_of(attempt, draw)
    x, mask = draw.normal(1, 3, 2 * H * K), torch.ones(1, 3, 3, dtype=torch.bool)
    mask[:, 1] = False
    row = layer(x, mask)[:, 1]
    agreement(row, torch.zeros_like(row), "query 1", "查询 1")


@check(en="Gradients reach everything, λ included", zh="梯度到达所有参数，包括 λ")
def gradients(attempt, draw: Draw):
    torch.manual_seed(0)
    layer = attempt.DifferentialAttention(8, 2, 2).double()
    gradient_flow(layer, draw.normal(2, 4, 8))


@check(en="Every head is normed by itself, then scaled", zh="每个头各自归一化，再缩放")
def norms(attempt, draw: Draw):
    layer, number, H, K = layer_of(attempt, draw)
    D = 2 * H * K
    with torch.no_grad():
        layer.to_out.weight.copy_(torch.eye(D))
        layer.to_v.weight.mul_(1e5)  # what the norm adds to be safe is nothing now
    out = layer(draw.normal(1, 4, D)).unflatten(2, (H, 2 * K))
    size = out.square().mean(-1).sqrt()
    right = 0.2 + 0.6 * math.exp(-0.3 * (number - 1))
    agreement(size, torch.full_like(size, right), "a head's size", "每个头的大小")


@check(en="Two maps and no more", zh="只算两张图")
def work(attempt, draw: Draw):
    x, H = draw.normal(1, 6, 8), draw.choice("heads", [1, 2, 4])
    layer = attempt.DifferentialAttention(8, H, 1).double()
    flops, enough = count_flops(lambda: layer(x)), 8 * 6 * 8**2 + 6 * 6**2 * 8
    if flops > enough:
        raise Broken(
            f"{flops} FLOPs where {enough} are enough",
            f"用了 {flops} FLOPs，{enough} 就够",
        )


@check(en="Equals the formula, head by head", zh="逐头等于公式")
def formula(attempt, draw: Draw):
    layer, number, H, K = layer_of(attempt, draw)
    x, grown = (
        draw.normal(2, 4, 2 * H * K),
        (layer.share_q * layer.share_k).sum(1).exp(),
    )
    start = 0.8 - 0.6 * math.exp(-0.3 * (number - 1))
    heads = []
    for h in range(H):
        rows = slice(2 * K * h, 2 * K * (h + 1))
        q, k, v = (x @ to.weight[rows].T for to in (layer.to_q, layer.to_k, layer.to_v))
        first, second = two_maps(q, k)
        out = (first - (grown[0] - grown[1] + start) * second) @ v
        size = (out.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        heads.append((1 - start) * out / size)
    agreement(layer(x), torch.cat(heads, -1) @ layer.to_out.weight.T)


CHECKS = [
    schedule, shares, sums, maps, future, blind, gradients, norms, work, formula
]  # fmt: skip


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    torch.manual_seed(0)
    layer, x = attempt.DifferentialAttention(128, 4, 2), torch.randn(2, 256, 128)
    return lambda: layer(x)


# --8<-- [end:checks]
