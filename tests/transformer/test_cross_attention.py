"""Cross-attention: PyTorch's module as oracle, decoding steps, padding, cost."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import (
    batch_independence,
    gradient_flow,
    no_input_mutated,
    registered_parameters,
)
from snippets.transformer.cross_attention import CrossAttention, step_flops
from tests.running import run_main


# --8<-- [start:peer]
def copy_to_peer(layer):
    """Return PyTorch's module with the weights of ours; kdim = vdim = M."""
    D, M = layer.to_q.in_features, layer.to_k.in_features
    peer = nn.MultiheadAttention(D, layer.heads, kdim=M, vdim=M, batch_first=True)
    three = (layer.to_q, layer.to_k, layer.to_v)
    with torch.no_grad():
        if M == D:  # it packs three matrices into one
            peer.in_proj_weight.copy_(torch.cat([to.weight for to in three]))
        else:
            peer.q_proj_weight.copy_(layer.to_q.weight)
            peer.k_proj_weight.copy_(layer.to_k.weight)
            peer.v_proj_weight.copy_(layer.to_v.weight)
        peer.in_proj_bias.copy_(torch.cat([to.bias for to in three]))
        peer.out_proj.load_state_dict(layer.to_out.state_dict())
    return peer.to(layer.to_q.weight.dtype)


# --8<-- [end:peer]


# --8<-- [start:equals-pytorch]
def test_equals_pytorch():
    """Outputs and gradients equal PyTorch's: T = 5, S = 7, D = 32, M = 48, padding."""
    layer = CrossAttention(32, 48, 4)
    x, y = torch.randn(2, 5, 32), torch.randn(2, 7, 48)
    keep = torch.tensor([7, 4])[:, None] > torch.arange(7)
    results = []
    for module in (layer, copy_to_peer(layer), copy_to_peer(layer).double()):
        like = next(module.parameters())
        x_, y_ = (t.to(like).detach().requires_grad_() for t in (x, y))
        if module is layer:
            out = module(x_, y_, keep)
        else:  # True means banned there
            out, _ = module(x_, y_, y_, key_padding_mask=~keep)
        results.append([out, *torch.autograd.grad(out.square().sum(), (x_, y_))])
    for name, ours, theirs, exact in zip(("out", "dx", "dy"), *results, strict=True):
        error, allowed = largest_error(ours, exact), error_budget(theirs, exact)
        assert error <= allowed
        print(f"{name}: largest error {error:.1e}, allowed {allowed:.1e}")


# --8<-- [end:equals-pytorch]


# --8<-- [start:steps-equal-whole]
def test_steps_equal_whole():
    """Reading one memory token by token equals one pass over all queries."""
    layer = CrossAttention(32, 48, 4).double()
    x, y = torch.randn(2, 5, 32).double(), torch.randn(2, 7, 48).double()
    memory = layer.remember(y)
    steps = [layer.read(x[:, t : t + 1], memory) for t in range(5)]
    torch.testing.assert_close(torch.cat(steps, dim=1), layer(x, y))
    print("5 steps from one memory equal one pass")


# --8<-- [end:steps-equal-whole]


# --8<-- [start:source-is-a-set]
def test_source_is_a_set():
    """Shuffling the source changes nothing; shuffling the queries shuffles the output."""
    layer = CrossAttention(32, 48, 4).double()
    x, y = torch.randn(2, 5, 32).double(), torch.randn(2, 7, 48).double()
    out = layer(x, y)
    torch.testing.assert_close(layer(x, y[:, torch.randperm(7)]), out)
    order = torch.randperm(5)
    torch.testing.assert_close(layer(x[:, order], y), out[:, order])
    print("the order of the source does not matter")


# --8<-- [end:source-is-a-set]


# --8<-- [start:padding]
def test_padding_of_the_source_is_inert():
    """NaN in the padding reaches neither the output nor the gradient of a weight."""
    layer = CrossAttention(32, 48, 4).double()
    x, y = torch.randn(2, 5, 32).double(), torch.randn(2, 7, 48).double()
    short = layer(x, y[:, :4])
    y[:, 4:] = float("nan")
    out = layer(x, y, torch.arange(7).expand(2, 7) < 4)
    torch.testing.assert_close(out, short)
    out.square().sum().backward()
    assert all(one.grad.isfinite().all() for one in layer.parameters())
    print("padding of NaN: output the same, gradients finite")


# --8<-- [end:padding]


@given(
    seed=st.integers(0, 999),
    B=st.integers(1, 2),
    T=st.integers(1, 6),
    S=st.integers(1, 6),
    H=st.integers(1, 3),
    K=st.integers(1, 4),
    M=st.integers(1, 9),
)
def test_equals_pytorch_on_any_shape(seed, B, T, S, H, K, M):
    """One token, T > S, M = D, heads of size one, each with padding."""
    torch.manual_seed(seed)
    layer = CrossAttention(H * K, M, H)
    x, y, keep = torch.randn(B, T, H * K), torch.randn(B, S, M), torch.rand(B, S) < 0.6
    keep[:, 0] = True
    exact, _ = copy_to_peer(layer).double()(
        x.double(), y.double(), y.double(), key_padding_mask=~keep
    )
    theirs, _ = copy_to_peer(layer)(x, y, y, key_padding_mask=~keep)
    assert largest_error(layer(x, y, keep), exact) <= error_budget(theirs, exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1.0, 60.0])
def test_every_dtype(dtype, size):
    """As exact as PyTorch in the same dtype, also with scores in the thousands."""
    layer = CrossAttention(16, 24, 2).to(dtype)
    x, y = (
        size * torch.randn(2, 3, 16).to(dtype),
        size * torch.randn(2, 5, 24).to(dtype),
    )
    peer = copy_to_peer(layer)
    theirs, _ = peer(x, y, y)
    exact, _ = peer.double()(x.double(), y.double(), y.double())
    assert layer(x, y).dtype == dtype
    assert largest_error(layer(x, y), exact) <= error_budget(theirs, exact)


def test_padding_of_inf_between_tokens():
    """Kept keys may have holes between them, and Inf in them stays there."""
    layer = CrossAttention(8, 6, 2).double()
    x, y = torch.randn(1, 3, 8).double(), torch.randn(1, 5, 6).double()
    keep = torch.tensor([[True, False, True, True, False]])
    short = layer(x, y[:, keep[0]])
    y[:, ~keep[0]] = math.inf
    torch.testing.assert_close(layer(x, y, keep), short)


def test_source_of_padding_only():
    """Zeros come out of the attention, so the output is the bias; gradients finite."""
    layer = CrossAttention(8, 6, 2)
    x, y = torch.randn(2, 3, 8, requires_grad=True), torch.randn(2, 4, 6)
    keep = torch.tensor([[False] * 4, [True] * 4])
    out = layer(x, y, keep)
    assert out[0].equal(layer.to_out.bias.expand(3, 8))
    torch.testing.assert_close(out[1:], layer(x[1:], y[1:]))
    out.sum().backward()
    assert x.grad.isfinite().all()
    assert not x.grad[0].any()


def test_memory_holds_what_reading_needs():
    """2·B·S·D numbers and keep; the source may go away or change afterwards."""
    layer = CrossAttention(8, 6, 2)
    x, y = torch.randn(2, 3, 8), torch.randn(2, 4, 6)
    keep = torch.rand(2, 4) < 0.9
    memory = layer.remember(y, keep)
    assert memory.k_BHSK.shape == memory.v_BHSK.shape == (2, 2, 4, 4)
    assert memory.keep_BS is keep
    before = layer.read(x, memory)
    y += 1
    assert layer.read(x, memory).equal(before)
    heads = layer.to_k(y - 1).unflatten(2, (2, 4))
    kept = keep[:, None, :, None]
    torch.testing.assert_close(memory.k_BHSK * kept, heads.transpose(1, 2) * kept)


def test_flops():
    """8·B·T·D² with M = D less the source: q and out, then 4·B·S·M·D and 4·B·T·S·D."""
    layer = CrossAttention(16, 24, 2)
    x, y = torch.randn(3, 5, 16), torch.randn(3, 7, 24)
    with FlopCounterMode(display=False) as counter:
        layer(x, y)
    assert counter.get_total_flops() == 3 * (
        4 * 5 * 16**2 + 4 * 7 * 24 * 16 + 4 * 5 * 7 * 16
    )
    assert step_flops(10, reuse=True) == 4 * 64**2 + 4 * 10 * 64
    assert step_flops(10, reuse=False) - step_flops(10, reuse=True) == 4 * 10 * 64**2


def test_kit():
    """Samples do not mix; gradients reach everything; nothing is mutated or hidden."""
    layer = CrossAttention(8, 6, 2).double()
    registered_parameters(layer)
    assert len(list(layer.parameters())) == 8
    y = torch.randn(1, 4, 6).double()
    hold(
        lambda draw: batch_independence(
            lambda x: layer(x, y.expand(len(x), 4, 6)), draw.normal(3, 2, 8), draw
        )
    )
    x = torch.randn(1, 3, 8).double()
    hold(
        lambda draw: batch_independence(
            lambda y: layer(x.expand(len(y), 3, 8), y), draw.normal(3, 2, 6), draw
        )
    )
    no_input_mutated(layer, x, y)
    with torch.no_grad():  # the bias of keys shifts all scores of a row: no gradient
        layer.to_k.bias = None
    gradient_flow(layer, x, y)


def test_gradcheck():
    """Gradients agree with finite differences."""
    layer = CrossAttention(4, 3, 2).double()
    x = torch.randn(1, 3, 4).double().requires_grad_()
    y = torch.randn(1, 2, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(layer, (x, y))


def test_layout_does_not_matter():
    """Inputs that are not contiguous, and training mode, give the same numbers."""
    layer = CrossAttention(8, 6, 2).double()
    x, y = torch.randn(3, 2, 8).double(), torch.randn(6, 4, 2).double()
    out = layer(x.transpose(0, 1), y.mT.transpose(0, 1).mT)
    same = layer(x.transpose(0, 1).contiguous(), y.mT.transpose(0, 1).mT.contiguous())
    torch.testing.assert_close(out, same)
    assert layer.eval()(x.transpose(0, 1), y.mT.transpose(0, 1).mT).equal(out)


def test_bad_input_is_named():
    """What came and what was expected."""
    for heads in (3, 0):
        with pytest.raises(
            ValueError,
            match=f"^heads is {heads}, query_size is 8: heads must divide it$",
        ):
            CrossAttention(8, 6, heads)
    layer, x, y = CrossAttention(8, 6, 2), torch.randn(2, 3, 8), torch.randn(2, 4, 6)
    with pytest.raises(
        ValueError,
        match=r"^y has shape \(2, 3, 8\), expected \(batch, positions, 6\)$",
    ):
        layer(x, x)
    with pytest.raises(
        ValueError,
        match=r"^x has shape \(2, 4, 6\), expected \(batch, positions, 8\)$",
    ):
        layer(y, y)
    with pytest.raises(ValueError, match=r"^x has shape \(3, 8\), expected"):
        layer(x[0], y)
    with pytest.raises(
        ValueError, match=r"^x has batch 1, the source has 2: they must agree$"
    ):
        layer(x[:1], y)
    with pytest.raises(
        ValueError, match=r"^keep has torch\.int64, expected torch\.bool$"
    ):
        layer(x, y, torch.ones(2, 4, dtype=torch.int64))
    with pytest.raises(
        ValueError, match=r"^keep has shape \(2, 3\), y has \(2, 4\): they must agree$"
    ):
        layer(x, y, torch.ones(2, 3, dtype=torch.bool))


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.transformer.cross_attention").output
    for line in (
        "out (2, 5, 32) keys (2, 4, 7, 8)",
        "S =   64:  1081344 FLOPs a step,  32768 with the keys and values kept; 33 times",
        "S =  256:  4276224 FLOPs a step,  81920 with the keys and values kept; 52 times",
        "S = 1024: 17055744 FLOPs a step, 278528 with the keys and values kept; 61 times",
        "keep passed on: differs from the source without padding by 0.00",
        "keep dropped: differs from the source without padding by 0.21",
        "no mask: query t sees [7, 7, 7, 7, 7]",
        "causal: query t sees [1, 2, 3, 4, 5]",
        "torch.Size([2, 5, 4, 8])",
        "shape '[2, 5, 4, -1]' is invalid for input of size 448",
    ):
        assert line in out
