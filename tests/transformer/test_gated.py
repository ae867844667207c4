"""Gated attention: PyTorch's parts and transformers' Qwen3-Next as oracles, the gate."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen3NextConfig
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextAttention

from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import (
    batch_independence,
    causality,
    gradient_flow,
    no_input_mutated,
    permutation_equivariance,
    registered_parameters,
)
from snippets.transformer.gated import GatedAttention, split_packed, ungated
from tests.running import run_main


# --8<-- [start:peer]
def from_parts(layer, x, mask):
    """Build the layer from F.linear and SDPA, with the rows of each head picked out."""
    from torch.nn.functional import linear, scaled_dot_product_attention

    H, R, K = layer.heads, layer.gates, layer.to_k.out_features // layer.heads
    outs = []
    for h in range(H):
        rows = layer.to_q_and_gate.weight[h * (K + R) : (h + 1) * (K + R)]
        own = slice(h * K, (h + 1) * K)
        q, gate = linear(x, rows[:K]), linear(x, rows[K:])
        k, v = linear(x, layer.to_k.weight[own]), linear(x, layer.to_v.weight[own])
        outs.append(scaled_dot_product_attention(q, k, v, mask[:, h]) * gate.sigmoid())
    return linear(torch.cat(outs, -1), layer.to_out.weight)


# --8<-- [end:peer]


# --8<-- [start:equals-parts]
def test_equals_parts():
    """Outputs and gradients of one gate a head and of one a dimension, three dtypes."""
    mask = torch.ones(2, 4, 6, 6, dtype=torch.bool).tril()
    for gates in (1, 8):
        layer, x = GatedAttention(32, 4, gates), torch.randn(2, 6, 32)
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            layer.to(dtype)
            inputs, results = (
                [x.to(dtype), *(p.detach() for p in layer.parameters())],
                [],
            )
            for f, kind in ((layer, dtype), (from_parts, dtype), (from_parts, None)):
                layer.to(kind or torch.float64)
                leaf = inputs[0].to(kind or torch.float64).requires_grad_()
                weights = [leaf, *layer.parameters()]
                out = f(leaf, mask) if f is layer else f(layer, leaf, mask)
                grads = torch.autograd.grad(out.square().sum(), weights)
                results.append([out, *grads])
            for number, (one, peer, truth) in enumerate(zip(*results, strict=True)):
                factor = 1 if number == 0 else 2  # their backward rounds elsewhere
                assert largest_error(one, truth) <= error_budget(peer, truth, factor)
            off = largest_error(results[0][0], results[2][0])
            print(f"{gates} gate(s) a head, {dtype}: largest error {off:.1e}")
            layer.to(torch.float32)


# --8<-- [end:equals-parts]


# --8<-- [start:gates]
def test_gates_scale_each_head():
    """Gates of zeros halve the output, wide open gates leave it, closed ones end it."""
    layer, x = GatedAttention(32, 4, 1).double(), torch.randn(1, 6, 32).double()
    x[..., 0] = 1  # a constant feature, so that a weight can act as a bias
    rows = layer.to_q_and_gate.weight.data.unflatten(0, (4, 9))[:, -1]
    whole = ungated(layer, x)
    for bias, share in ((0.0, 0.5), (50.0, 1.0), (-50.0, 0.0)):
        rows.zero_()
        rows[:, 0] = bias
        torch.testing.assert_close(layer(x), share * whole)
        print(f"gate logits {bias:3.0f}: {share} of the ungated output")


# --8<-- [end:gates]


# --8<-- [start:own-input]
def test_gate_comes_from_the_query():
    """What others say moves the attention, never the gate."""
    layer, x = GatedAttention(32, 4, 8), torch.randn(1, 6, 32)
    _, gate = split_packed(layer.to_q_and_gate(x), 4, 8)
    other = x.clone()
    other[:, 1:] += 1
    _, moved = split_packed(layer.to_q_and_gate(other), 4, 8)
    assert moved[:, :, 0].equal(gate[:, :, 0])
    assert (layer(other) - layer(x))[:, 0].abs().max() > 0.01
    print("gates of position 0 stay when positions 1 to 5 change")


# --8<-- [end:own-input]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_equals_qwen3_next(dtype):
    """Its attention without norms and rotation, with the weights copied as they are."""
    config = Qwen3NextConfig(
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=8,
        num_hidden_layers=1,
        layer_types=["full_attention"],
        attn_implementation="eager",
    )
    theirs = Qwen3NextAttention(config, layer_idx=0).eval()
    theirs.q_norm = theirs.k_norm = torch.nn.Identity()
    ours = GatedAttention(32, 4, 8)
    for mine, name in (
        (ours.to_q_and_gate, "q_proj"),
        (ours.to_k, "k_proj"),
        (ours.to_v, "v_proj"),
        (ours.to_out, "o_proj"),
    ):
        mine.load_state_dict(getattr(theirs, name).state_dict())
    x, mask = torch.randn(2, 6, 32).to(dtype), torch.ones(2, 4, 6, 6, dtype=torch.bool)
    mask = mask.tril()

    def run(kind):
        bias = torch.zeros(mask.shape).masked_fill(~mask, -math.inf).to(kind)
        still = torch.ones(1, 6, 8, dtype=kind), torch.zeros(1, 6, 8, dtype=kind)
        return theirs.to(kind)(x.to(kind), still, bias)[0]

    peer = run(dtype)
    exact = ours.to(dtype).double()(x.double(), mask)
    torch.testing.assert_close(run(torch.float64), exact, rtol=0, atol=1e-6)
    assert largest_error(ours.to(dtype)(x, mask), exact) <= error_budget(peer, exact)


@given(
    seed=st.integers(0, 999),
    B=st.integers(1, 2),
    T=st.integers(1, 5),
    H=st.integers(1, 3),
    K=st.integers(1, 4),
    wide=st.booleans(),
)
def test_equals_parts_on_any_shape(seed, B, T, H, K, wide):
    """One token, heads of size one, any mask with a visible key."""
    torch.manual_seed(seed)
    layer = GatedAttention(H * K, H, K if wide else 1).double()
    x, mask = torch.randn(B, T, H * K).double(), torch.rand(B, H, T, T) < 0.5
    mask[..., 0] = True
    torch.testing.assert_close(layer(x, mask), from_parts(layer, x, mask))
    torch.testing.assert_close(layer(x), from_parts(layer, x, mask | True))


def test_split_packed():
    """[q0 g0 | q1 g1]: each head's queries come first, then its gates."""
    x = torch.arange(12.0).view(1, 1, 12)
    q, gate = split_packed(x, 2, 2)
    assert q[0, :, 0].tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
    assert gate[0, :, 0].tolist() == [[4, 5], [10, 11]]
    q, gate = split_packed(x, 3, 1)
    assert q.shape == (1, 3, 1, 3)
    assert gate[0, :, 0].tolist() == [[3], [7], [11]]


def test_ungated():
    """The layer without its gates is plain attention."""
    layer, x = GatedAttention(8, 2, 4).double(), torch.randn(2, 3, 8).double()
    q, _ = split_packed(layer.to_q_and_gate(x), 2, 4)
    k, v = (
        to(x).unflatten(2, (2, 4)).transpose(1, 2) for to in (layer.to_k, layer.to_v)
    )
    out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(ungated(layer, x), layer.to_out(out))


def test_heads_have_their_own_gates():
    """Close the gate of head 0: only its columns vanish."""
    layer, x = GatedAttention(8, 2, 1), torch.randn(1, 3, 8)
    with torch.no_grad():
        x[..., 0] = 1
        layer.to_out.weight.copy_(torch.eye(8))
        before = layer(x)
        layer.to_q_and_gate.weight[4] = 0
        layer.to_q_and_gate.weight[4, 0] = -100
        after = layer(x)
    assert (after[..., :4].abs() < 1e-6).all()
    assert after[..., 4:].equal(before[..., 4:])


def test_properties():
    """What self-attention must satisfy, gated or not."""
    layer = GatedAttention(8, 2, 4).double()

    def run(draw):
        T = draw.size("T", 2, 6)
        x = draw.normal(2, T, 8)
        causal = torch.ones(2, 2, T, T, dtype=torch.bool).tril()
        causality(lambda x: layer(x, causal), x, draw)
        batch_independence(layer, x, draw)
        permutation_equivariance(layer, x, draw)
        no_input_mutated(lambda x: layer(x, causal), x)

    hold(run)
    registered_parameters(layer)
    gradient_flow(layer, torch.randn(2, 5, 8).double())


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_padding_may_hold_anything(poison):
    """Blind queries give zeros although their gates are NaN; gradients stay finite."""
    for gates in (1, 4):
        layer, x = GatedAttention(8, 2, gates).double(), torch.randn(1, 5, 8).double()
        mask = torch.ones(1, 2, 5, 5, dtype=torch.bool)
        mask[..., 3:] = mask[..., 3:, :] = False
        short = layer(x[:, :3])
        x[:, 3:] = poison
        out = layer(x.requires_grad_(), mask)
        torch.testing.assert_close(out[:, :3], short)
        assert (out[:, 3:] == 0).all()
        (grad,) = torch.autograd.grad(out.square().sum(), x)
        assert grad.isfinite().all()


def test_huge_inputs_and_strides():
    """Gates of ±1e4 stay between 0 and 1, outputs finite; views are fine."""
    layer, x = GatedAttention(8, 2, 4), torch.randn(2, 5, 8)
    with torch.no_grad():
        assert layer(1e4 * x).isfinite().all()
        bound = ungated(GatedAttention(8, 2, 4), x).abs().max()
        assert bound.isfinite()
        view = torch.randn(5, 2, 8).transpose(0, 1)
        torch.testing.assert_close(layer(view), layer(view.contiguous()))


def test_gradcheck():
    """Gradients agree with finite differences."""
    layer = GatedAttention(4, 2, 1).double()
    assert torch.autograd.gradcheck(
        layer, torch.randn(1, 3, 4).double().requires_grad_()
    )


def test_bad_input_is_named():
    """What came and what was expected."""
    for heads in (3, 0):
        with pytest.raises(
            ValueError,
            match=f"^heads is {heads}, model_size is 8: heads must divide it$",
        ):
            GatedAttention(8, heads, 1)
    with pytest.raises(ValueError, match=r"^gates is 2, expected 1 or 4 for a head$"):
        GatedAttention(8, 2, 2)
    layer, x = GatedAttention(8, 2, 1), torch.randn(2, 3, 8)
    with pytest.raises(
        ValueError,
        match=r"^x has shape \(2, 3, 7\), expected \(batch, positions, 8\)$",
    ):
        layer(x[..., :7])
    with pytest.raises(ValueError, match=r"^x has shape \(3, 8\), expected"):
        layer(x[0])
    with pytest.raises(
        ValueError, match=r"^mask has shape \(2, 3, 3\), expected \(2, 2,"
    ):
        layer(x, torch.ones(2, 3, 3, dtype=torch.bool))


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.transformer.gated").output
    for line in (
        " 1 gates a head: output (2, 16, 64), gates from 0.23 to 0.86",
        "16 gates a head: output (2, 16, 64), gates from 0.17 to 0.88",
        "no gate: f(a + b) differs from f(a) + f(b) by 0%",
        "gated  : f(a + b) differs from f(a) + f(b) by 25%",
        "T =  512, no gate        :  536.9 MFLOPs, 262144 weights",
        "T =  512, 1 gate a head  :  537.9 MFLOPs, 263168 weights",
        "T =  512, 64 gates a head:  604.0 MFLOPs, 327680 weights",
        "1 head(s): read as [queries | gates], outputs are off by 0%",
        "4 heads of 16: 64 rows for queries expected, 128 are there",
    ):
        assert line in out
    assert "4 head(s): read as [queries | gates], outputs are off by 0%" not in out
