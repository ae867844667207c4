"""Multi-head attention: PyTorch's module as oracle, heads, merges, cost."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from snippets.properties.error_budget import error_budget, largest_error
from snippets.transformer.multi_head import (
    MultiHeadAttention,
    attend,
    merge_heads,
    split_heads,
)
from tests.running import run_main


# --8<-- [start:peer]
def copy_to_peer(layer):
    """Return PyTorch's module with the weights of ours."""
    size = layer.to_q.in_features
    peer = nn.MultiheadAttention(size, layer.heads, batch_first=True)
    three = (layer.to_q, layer.to_k, layer.to_v)
    with torch.no_grad():
        peer.in_proj_weight.copy_(torch.cat([to.weight for to in three]))
        peer.in_proj_bias.copy_(torch.cat([to.bias for to in three]))
        peer.out_proj.load_state_dict(layer.to_out.state_dict())
    return peer


# --8<-- [end:peer]


# --8<-- [start:equals-pytorch]
def test_equals_pytorch():
    """Outputs and gradients equal PyTorch's, with masks and more keys than queries."""
    layer, x, y = (
        MultiHeadAttention(32, 4),
        torch.randn(2, 6, 32),
        torch.randn(2, 9, 32),
    )
    peer, mask = copy_to_peer(layer), torch.rand(2, 6, 9) < 0.7
    mask[..., 0] = True
    results = []
    for module in (layer, peer, copy_to_peer(layer).double()):
        x_, y_ = (
            t.to(next(module.parameters())).detach().requires_grad_() for t in (x, y)
        )
        if module is layer:
            out = module(x_, y_, mask)
        else:  # its masks say the opposite, one for each head
            banned = ~mask.repeat_interleave(4, dim=0)
            out, _ = module(x_, y_, y_, attn_mask=banned)
        results.append([out, *torch.autograd.grad(out.square().sum(), (x_, y_))])
    for name, ours, theirs, exact in zip(("out", "dx", "dy"), *results, strict=True):
        error, allowed = largest_error(ours, exact), error_budget(theirs, exact)
        assert error <= allowed
        print(f"{name}: largest error {error:.1e}, allowed {allowed:.1e}")


# --8<-- [end:equals-pytorch]


# --8<-- [start:packed]
def test_packed_equals_separate():
    """One product with the stacked matrices does the work of three."""
    layer, x = MultiHeadAttention(32, 4).double(), torch.randn(2, 6, 32).double()
    three = (layer.to_q, layer.to_k, layer.to_v)
    weight = torch.cat([to.weight for to in three])
    bias = torch.cat([to.bias for to in three])
    packed = nn.functional.linear(x, weight, bias).chunk(3, dim=-1)
    for one, to in zip(packed, three, strict=True):
        torch.testing.assert_close(one, to(x))
    print(
        "one product", tuple(weight.shape), "instead of three", tuple(to.weight.shape)
    )


# --8<-- [end:packed]


# --8<-- [start:sum-of-heads]
def test_output_is_a_sum_over_heads():
    """Merging and W_O = each head times its own columns of W_O, added up."""
    layer, x = MultiHeadAttention(32, 4).double(), torch.randn(2, 6, 32).double()
    q, k, v = (split_heads(to(x), 4) for to in (layer.to_q, layer.to_k, layer.to_v))
    heads = attend(q, k, v).unbind(1)
    columns = layer.to_out.weight.chunk(4, dim=1)
    total = layer.to_out.bias + sum(
        h @ w.T for h, w in zip(heads, columns, strict=True)
    )
    torch.testing.assert_close(layer(x), total)
    print("sum over 4 heads equals the layer")


# --8<-- [end:sum-of-heads]


@given(
    seed=st.integers(0, 999),
    B=st.integers(1, 2),
    T=st.integers(1, 5),
    S=st.integers(1, 5),
    H=st.integers(1, 3),
    K=st.integers(1, 4),
)
def test_equals_pytorch_on_any_shape(seed, B, T, S, H, K):
    """One token, T ≠ S, heads of size one."""
    torch.manual_seed(seed)
    layer = MultiHeadAttention(H * K, H)
    peer, x, y = copy_to_peer(layer), torch.randn(B, T, H * K), torch.randn(B, S, H * K)
    exact, _ = copy_to_peer(layer).double()(x.double(), y.double(), y.double())
    assert largest_error(layer(x, y), exact) <= error_budget(peer(x, y, y)[0], exact)


def test_split_and_merge_are_inverse():
    """Splitting gives head h the h-th run of the last axis; merging undoes it."""
    x = torch.arange(2 * 3 * 8.0).reshape(2, 3, 8)
    split = split_heads(x, 4)
    assert split.shape == (2, 4, 3, 2)
    assert split[1, 2, 0].equal(x[1, 0, 4:6])
    assert merge_heads(split).equal(x)


def test_heads_do_not_mix_before_w_o():
    """With W_O = 1, a value of head h reaches the outputs of head h only."""
    layer = MultiHeadAttention(8, 2)
    with torch.no_grad():
        layer.to_out.weight.copy_(torch.eye(8))
        layer.to_out.bias.zero_()
        x = torch.randn(1, 3, 8)
        before = layer(x)
        layer.to_v.weight[4:] += 1
        changed = (layer(x) - before)[0].abs().amax(0) > 0
    assert changed.tolist() == [False] * 4 + [True] * 4


def test_heads_have_their_own_softmax():
    """Heads do more than cut the last axis: the same weights with one head differ."""
    layer, single = MultiHeadAttention(32, 4), MultiHeadAttention(32, 1)
    single.load_state_dict(layer.state_dict())
    x = torch.randn(1, 6, 32)
    assert (layer(x) - single(x)).abs().max() > 0.05


def test_flops_do_not_depend_on_heads():
    """8·B·T·D² + 4·B·T²·D whatever the number of heads."""
    for heads in (1, 2, 4, 8):
        with FlopCounterMode(display=False) as counter:
            MultiHeadAttention(32, heads)(torch.randn(3, 10, 32))
        assert counter.get_total_flops() == 3 * (8 * 10 * 32**2 + 4 * 10**2 * 32)


def test_future_changes_nothing():
    """Under a causal mask the past does not move."""
    layer, x = MultiHeadAttention(16, 4), torch.randn(1, 6, 16)
    mask = torch.ones(1, 6, 6, dtype=torch.bool).tril()
    before = layer(x, mask_BTS=mask)
    x[:, 4:] += 1
    after = layer(x, mask_BTS=mask)
    torch.testing.assert_close(before[:, :4], after[:, :4], rtol=0, atol=1e-6)
    assert (before[:, 4:] - after[:, 4:]).abs().max() > 1e-2


def test_samples_do_not_mix():
    """Batch element 0 is the same alone."""
    layer, x = MultiHeadAttention(16, 4).double(), torch.randn(3, 5, 16).double()
    torch.testing.assert_close(layer(x)[:1], layer(x[:1]))


def test_padding_may_hold_nan():
    """A padded batch equals the unpadded sequence; gradients stay finite."""
    layer, x = MultiHeadAttention(16, 4).double(), torch.randn(1, 5, 16).double()
    y = torch.randn(1, 7, 16).double()
    mask = torch.ones(1, 5, 7, dtype=torch.bool)
    mask[..., 4:] = False
    short = layer(x, y[:, :4])
    y[:, 4:] = math.nan
    x.requires_grad_()
    out = layer(x, y, mask)
    torch.testing.assert_close(out, short)
    out.sum().backward()
    assert x.grad.isfinite().all()


def test_gradcheck():
    """Gradients agree with finite differences."""
    layer = MultiHeadAttention(4, 2).double()
    x = torch.randn(1, 3, 4).double().requires_grad_()
    y = torch.randn(1, 2, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(layer, (x, y))


def test_eval_is_deterministic():
    """No dropout hides in the layer."""
    layer, x = MultiHeadAttention(16, 4), torch.randn(2, 5, 16)
    assert layer.train()(x).equal(layer.eval()(x))


def test_bad_input_is_named():
    """What came and what was expected."""
    with pytest.raises(ValueError, match="heads is 3, model_size is 8"):
        MultiHeadAttention(8, 3)
    with pytest.raises(ValueError, match="heads is 0, model_size is 8"):
        MultiHeadAttention(8, 0)
    layer, x = MultiHeadAttention(8, 2), torch.randn(2, 3, 8)
    with pytest.raises(ValueError, match=r"x has shape \(2, 3, 7\), expected .*, 8\)"):
        layer(x[..., :7])
    with pytest.raises(ValueError, match=r"y has shape \(3, 8\), expected .*, 8\)"):
        layer(x, x[0])
    with pytest.raises(ValueError, match="y has batch 1, x has 2: they must agree"):
        layer(x, x[:1])
    mask = torch.ones(3, 3, dtype=torch.bool)
    with pytest.raises(
        ValueError, match=r"mask has shape \(3, 3\), expected \(2, 3, 3\)"
    ):
        layer(x, mask_BTS=mask)
    with pytest.raises(ValueError, match=r"mask has torch\.float32"):
        layer(x, mask_BTS=torch.ones(2, 3, 3))


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.transformer.multi_head").output
    for heads in (" 1", " 4", "16"):
        assert f"{heads} heads: 25165824 FLOPs, 16640 parameters" in out
    assert "right: 0% of position 0" in out
    assert "no transpose: 75% of position 0" in out
    assert "transpose(-1, -2): 83% of position 0" in out
    assert "nn.MultiheadAttention, future: 0.00" in out
    assert "same mask in SDPA, future: 5.00" in out
    assert "sample 0 moved by 0.00" not in out
    assert "outputs differ by 0.0" not in out
    assert "two runs in eval agree: False" in out
