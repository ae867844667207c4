"""Exercise: multi-head attention."""

from snippets.properties.cost import count_flops
from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import (
    agreement,
    batch_independence,
    causality,
    gap,
    gradient_flow,
    permutation_equivariance,
)

# isort: split
# --8<-- [start:checks]
import torch
from torch import nn


def peer_of(layer: nn.Module) -> nn.MultiheadAttention:
    """Return PyTorch's module with the weights of the attempt's."""
    D = layer.to_q.in_features
    peer = nn.MultiheadAttention(D, layer.heads, batch_first=True).double()
    three = (layer.to_q, layer.to_k, layer.to_v)
    with torch.no_grad():
        peer.in_proj_weight.copy_(torch.cat([to.weight for to in three]))
        peer.in_proj_bias.copy_(torch.cat([to.bias for to in three]))
        peer.out_proj.load_state_dict(layer.to_out.state_dict())
    return peer


def layer_of(attempt, draw: Draw, T: int) -> tuple[nn.Module, torch.Tensor]:
    """Return the attempt's layer in float64, and an input of T positions."""
    H, K = draw.size("heads", 1, 3), draw.size("size of a head", 1, 3)
    torch.manual_seed(0)
    layer = attempt.MultiHeadAttention(H * K, H).double()
    return layer, draw.normal(draw.size("B", 1, 2), T, H * K)


@check(en="Splitting and merging are inverse", zh="拆头与并头互为逆运算")
def inverse(attempt, draw):
    H, K = draw.size("heads", 1, 3), draw.size("size of a head", 1, 3)
    x = draw.normal(2, draw.size("T", 1, 4), H * K)
    heads = attempt.split_heads(x, H)
    agreement(heads[:, 0], x[..., :K], "the first head", "第一个头")
    agreement(attempt.merge_heads(heads), x, "what was split and merged", "拆开再合并")


@check(en="The future changes nothing", zh="后面的输入不影响前面的输出")
def future(attempt, draw):
    T = draw.size("T", 2, 5)
    layer, x = layer_of(attempt, draw, T)
    causal = torch.ones(T, T, dtype=torch.bool).tril().expand(len(x), T, T)
    causality(lambda x: layer(x, mask_BTS=causal), x, draw)


@check(en="Samples do not mix", zh="样本之间互不影响")
def samples(attempt, draw):
    layer, x = layer_of(attempt, draw, draw.size("T", 1, 4))
    batch_independence(layer, torch.cat([x, x + 1]), draw)


@check(en="Permuting inputs permutes outputs", zh="打乱输入，输出随之打乱")
def order(attempt, draw):
    layer, x = layer_of(attempt, draw, draw.size("T", 1, 4))
    permutation_equivariance(layer, x, draw)


@check(en="Gradients reach every weight", zh="每个权重都有梯度")
def gradients(attempt, draw):
    torch.manual_seed(0)
    layer = attempt.MultiHeadAttention(6, 2).double()
    with torch.no_grad():  # W_K's bias shifts all scores of a row: no gradient there
        layer.to_k.bias = None
    gradient_flow(layer, draw.normal(2, 4, 6))


@check(en="Heads have weights of their own", zh="每个头有自己的权重")
def own_weights(attempt, draw):
    torch.manual_seed(0)
    layer, x = attempt.MultiHeadAttention(8, 2).double(), draw.normal(1, 5, 8)
    single = attempt.MultiHeadAttention(8, 1).double()
    single.load_state_dict(layer.state_dict())
    if gap(layer(x), single(x)) < 1e-6:
        raise Broken(
            "one head and two heads with the same weights give the same output",
            "权重相同，一个头和两个头的输出竟然一样",
        )


@check(en="The work does not depend on the number of heads", zh="计算量与头数无关")
def work(attempt, draw):
    x = draw.normal(1, 8, 12)
    layers = [attempt.MultiHeadAttention(12, H).double() for H in (1, 2, 6)]
    counts = [count_flops(lambda layer=layer: layer(x)) for layer in layers]
    expected = 8 * 8 * 12**2 + 4 * 8**2 * 12
    if max(counts) > expected:
        raise Broken(
            f"1, 2 and 6 heads take {counts} FLOPs, {expected} are enough",
            f"1、2、6 个头分别用了 {counts} FLOPs，{expected} 就够",
        )


@check(en="Equals nn.MultiheadAttention", zh="等于 nn.MultiheadAttention")
def pytorch(attempt, draw):
    layer, x = layer_of(attempt, draw, draw.size("T", 1, 4))
    y = draw.normal(len(x), draw.size("S", 1, 5), x.shape[2])
    mask = draw.mask(len(x), x.shape[1], y.shape[1])
    mask[..., 0] = True
    peer = peer_of(layer)
    banned = ~mask.repeat_interleave(layer.heads, dim=0)
    expected, _ = peer(x, y, y, attn_mask=banned)
    agreement(layer(x, y, mask), expected, "the output", "输出")


CHECKS = [inverse, future, samples, order, gradients, own_weights, work, pytorch]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    torch.manual_seed(0)
    layer, x = attempt.MultiHeadAttention(128, 8), torch.randn(4, 256, 128)
    return lambda: layer(x)


# --8<-- [end:checks]
