"""The shared block: masks hold, the control is a mean, the weights are the layer's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets.applications.blocks import (
    Block,
    UniformMixing,
    equal_weights,
    weights_of,
)
from snippets.foundations.additive import AdditiveAttention
from snippets.properties.error_budget import error_budget, largest_error
from snippets.transformer.multi_head import MultiHeadAttention, merge_heads, split_heads

MIXERS = [MultiHeadAttention, UniformMixing]


@pytest.mark.parametrize("mixer", MIXERS)
@given(T=st.integers(1, 6), S=st.integers(1, 6))
def test_shapes(mixer, T, S):
    x_BTD, y_BSD = torch.randn(2, T, 8), torch.randn(2, S, 8)
    assert Block(8, 2, mixer=mixer)(x_BTD).shape == (2, T, 8)
    assert Block(8, 2, cross=True, mixer=mixer)(x_BTD, None, y_BSD).shape == (2, T, 8)


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_causal_mask_hides_the_future(mixer):
    block = Block(8, 2, mixer=mixer)
    mask = torch.ones(5, 5, dtype=torch.bool).tril().expand(2, 5, 5)
    x = torch.randn(2, 5, 8)
    changed = x.clone()
    changed[:, 3:] = torch.randn(2, 2, 8)
    before, after = block(x, mask), block(changed, mask)
    assert before[:, :3].equal(after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize("mixer", MIXERS)
def test_padding_of_the_second_sequence_changes_nothing(mixer):
    block = Block(8, 2, cross=True, mixer=mixer).double()
    x, y = torch.randn(2, 3, 8).double(), torch.randn(2, 6, 8).double()
    mask = (torch.arange(6) < 4).expand(2, 3, 6)
    padded, short = block(x, None, y, mask), block(x, None, y[:, :4])
    assert largest_error(padded, short) <= error_budget(short, short)


def test_uniform_is_the_mean_of_what_is_seen():
    layer = UniformMixing(8)
    y = torch.randn(1, 5, 8)
    mask = torch.tensor([[[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]], dtype=torch.bool)
    out = layer(torch.randn(1, 2, 8), y, mask)
    expected = layer.to_out(layer.to_v(y)[:, :2].mean(1))
    assert torch.allclose(out[:, 0], expected, atol=1e-6)
    assert torch.allclose(out[0, 1], layer.to_out.bias)
    whole = layer(torch.randn(1, 2, 8), y)
    assert torch.allclose(whole[:, 0], layer.to_out(layer.to_v(y).mean(1)), atol=1e-6)


def test_the_weights_reproduce_what_the_layer_gives():
    layer = MultiHeadAttention(8, 2).double()
    x, y = torch.randn(2, 3, 8).double(), torch.randn(2, 5, 8).double()
    mask = torch.rand(2, 3, 5) < 0.7
    mask[..., 0] = True
    for given_mask in (None, mask):
        weight = weights_of(layer, x, y, given_mask)
        value = split_heads(layer.to_v(y), 2)
        ours = layer.to_out(merge_heads(weight @ value))
        theirs = layer(x, y, given_mask)
        assert largest_error(ours, theirs) <= error_budget(theirs, theirs, 2)
        assert torch.allclose(weight.sum(-1), torch.ones(()).double())
    itself = weights_of(layer, x)
    assert itself.shape == (2, 2, 3, 3)


def test_a_block_equals_pytorchs_own():
    """norm_first TransformerEncoderLayer with the same weights."""
    ours = Block(8, 2).double()
    theirs = nn.TransformerEncoderLayer(
        8, 2, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).double()
    with torch.no_grad():
        mix = ours.mix
        theirs.self_attn.in_proj_weight.copy_(
            torch.cat([mix.to_q.weight, mix.to_k.weight, mix.to_v.weight])
        )
        theirs.self_attn.in_proj_bias.copy_(
            torch.cat([mix.to_q.bias, mix.to_k.bias, mix.to_v.bias])
        )
        theirs.self_attn.out_proj.load_state_dict(mix.to_out.state_dict())
        theirs.norm1.load_state_dict(ours.norm.state_dict())
        theirs.norm2.load_state_dict(ours.mlp[0].state_dict())
        theirs.linear1.load_state_dict(ours.mlp[1].state_dict())
        theirs.linear2.load_state_dict(ours.mlp[3].state_dict())
    x = torch.randn(2, 5, 8).double()
    assert largest_error(ours(x), theirs(x)) <= error_budget(theirs(x), theirs(x), 2)


def test_a_second_sequence_where_none_fits_is_refused():
    x = torch.randn(1, 2, 8)
    with pytest.raises(ValueError, match="y was given: this block has no cross"):
        Block(8, 2)(x, None, x)
    with pytest.raises(ValueError, match="y is missing: this block has cross"):
        Block(8, 2, cross=True)(x)


def test_every_parameter_gets_a_gradient():
    block = Block(8, 2, cross=True)
    block(torch.randn(1, 3, 8), None, torch.randn(1, 4, 8)).square().sum().backward()
    silent = [name for name, p in block.named_parameters() if not p.grad.any()]
    # The bias of a key shifts all scores of a row alike: softmax does not see it.
    assert set(silent) <= {"mix.to_k.bias", "cross.to_k.bias"}


def test_equal_weights_average_what_is_seen():
    """All visible weights are equal, in attention by products and by addition."""
    mask = torch.rand(2, 5, 5) < 0.6
    mask[..., 0] = True
    mean = mask / mask.sum(-1, keepdim=True)
    x = 5 * torch.randn(2, 5, 8)
    block = equal_weights(Block(8, 2), "mix.to_q")
    weight = weights_of(block.mix, block.norm(x), mask_BTS=mask)
    assert torch.allclose(weight, mean.unsqueeze(1).expand(-1, 2, -1, -1))
    layer = equal_weights(AdditiveAttention(8, 8, 4), "energy")
    assert torch.allclose(layer(x, x, x, mask)[1], mean)


def test_equal_weights_change_the_named_part_of_a_copy():
    """Nothing else moves, the model stays as it was, whole names count."""
    block = Block(8, 2, cross=True)
    before = {name: p.clone() for name, p in block.state_dict().items()}
    copy = equal_weights(block, "cross.to_q")
    assert all(p.equal(before[name]) for name, p in block.state_dict().items())
    moved = {n for n, p in copy.state_dict().items() if not p.equal(before[n])}
    assert moved == {"cross.to_q.weight", "cross.to_q.bias"}
    for wrong in ("o_q", "energy"):
        with pytest.raises(ValueError, match=f"is named '{wrong}'"):
            equal_weights(block, wrong)
