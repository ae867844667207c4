"""Cross-modal attention: oracle, gate, masks, missing modality, gradients, cost."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets.multimodal.cross_modal import (
    CoAttention,
    CrossModalAttention,
    count_flops,
)
from snippets.properties.error_budget import error_budget, largest_error
from tests.running import run_main


def opened(dtype=torch.float32, **sizes):
    """A layer whose gate is open, so that the image matters."""
    layer = CrossModalAttention(
        **{"x_size": 6, "y_size": 5, "model_size": 8, "heads": 2, **sizes}
    ).to(dtype)
    layer.gate.data.fill_(0.7)
    return layer


def pair(B=3, T=4, S=7, dtype=torch.float32):
    """Text, image and the two masks, with at least one visible vector each."""
    text_mask_BT = torch.rand(B, T) < 0.6
    image_mask_BS = torch.rand(B, S) < 0.6
    text_mask_BT[:, 0] = image_mask_BS[:, 0] = True
    return (
        torch.randn(B, T, 6, dtype=dtype),
        torch.randn(B, S, 5, dtype=dtype),
        text_mask_BT,
        image_mask_BS,
    )


# --8<-- [start:equals-mha]
def test_equals_multihead_attention():
    """With copied weights it is nn.MultiheadAttention with kdim and vdim, gated."""
    torch.manual_seed(0)
    ours = CrossModalAttention(x_size=32, y_size=48, model_size=32, heads=4)
    ours.gate.data.fill_(0.7)
    theirs = nn.MultiheadAttention(
        32, 4, bias=False, kdim=48, vdim=48, batch_first=True
    )
    theirs.q_proj_weight.data = ours.to_query.weight.data
    theirs.k_proj_weight.data = ours.to_key.weight.data
    theirs.v_proj_weight.data = ours.to_value.weight.data
    theirs.out_proj.weight.data = ours.to_out.weight.data
    x_BTD, y_BSI = torch.randn(3, 5, 32), torch.randn(3, 11, 48)
    y_mask_BS = torch.rand(3, 11) < 0.6
    y_mask_BS[:, 0] = True

    def peer(dtype):
        theirs.to(dtype)
        x, y = x_BTD.to(dtype), y_BSI.to(dtype)
        read, _ = theirs(x, y, y, key_padding_mask=~y_mask_BS, need_weights=False)
        return x + ours.gate.to(dtype).tanh() * read

    exact = peer(torch.float64)
    allowed = error_budget(peer(torch.float32), exact)
    error = largest_error(ours(x_BTD, y_BSI, y_mask_BS=y_mask_BS), exact)
    print(f"largest error {error:.1e}, allowed {allowed:.1e}")
    assert error <= allowed


# --8<-- [end:equals-mha]


# --8<-- [start:gate]
def test_gate_at_zero_is_identity_and_opens_first():
    """A new layer returns x bit for bit; its first step moves the gate alone."""
    torch.manual_seed(0)
    layer = CrossModalAttention(x_size=6, y_size=5, model_size=8, heads=2)
    x_BTD, y_BSI = torch.randn(3, 4, 6), torch.randn(3, 7, 5)
    out_BTD = layer(x_BTD, y_BSI)
    assert out_BTD.equal(x_BTD)
    (out_BTD - 1).square().sum().backward()
    norms = {n: p.grad.norm().item() for n, p in layer.named_parameters()}
    print({name: round(norm, 3) for name, norm in norms.items()})
    assert norms.pop("gate") > 0
    assert set(norms.values()) == {0.0}


# --8<-- [end:gate]


# --8<-- [start:nothing-leaks]
def test_nothing_leaks_from_padding():
    """NaN and Inf in the padding change neither the output nor any gradient."""
    for poison in (float("nan"), float("inf")):
        torch.manual_seed(0)
        layer = CrossModalAttention(x_size=6, y_size=5, model_size=8, heads=2)
        layer.gate.data.fill_(0.7)
        x_BTD, y_BSI = torch.randn(2, 3, 6), torch.randn(2, 4, 5)
        x_mask_BT = torch.tensor([[True, True, False], [True, True, True]])
        y_mask_BS = torch.tensor([[True, False, True, True], [False] * 4])
        results = []
        for fill in (0.0, poison):
            x_BTD[~x_mask_BT], y_BSI[~y_mask_BS] = fill, fill
            layer.zero_grad()
            out_BTD = layer(x_BTD, y_BSI, x_mask_BT, y_mask_BS)
            out_BTD[x_mask_BT].square().sum().backward()
            gradients = [p.grad.clone() for p in layer.parameters()]
            results.append((out_BTD[x_mask_BT], *gradients))
        same = all(a.equal(b) for a, b in zip(*results, strict=True))
        print(f"padding {poison}: output and 5 gradients equal: {same}")
        assert same


# --8<-- [end:nothing-leaks]


# --8<-- [start:missing]
def test_missing_image_leaves_the_text_alone():
    """Without a visible patch: zero weights, output = text, no NaN in a gradient."""
    torch.manual_seed(0)
    layer = CrossModalAttention(x_size=6, y_size=5, model_size=8, heads=2)
    layer.gate.data.fill_(0.7)
    x_BTD, y_BSI = torch.randn(2, 3, 6), torch.randn(2, 4, 5)
    y_mask_BS = torch.tensor([[True] * 4, [False] * 4])
    out_BTD = layer(x_BTD, y_BSI, y_mask_BS=y_mask_BS)
    weight_BHTS = layer.weights(x_BTD, y_BSI, y_mask_BS=y_mask_BS)
    out_BTD.sum().backward()
    print("pair with image changed:", not out_BTD[0].equal(x_BTD[0]))
    print("pair without: unchanged:", out_BTD[1].equal(x_BTD[1]))
    assert not out_BTD[0].equal(x_BTD[0])
    assert out_BTD[1].equal(x_BTD[1])
    assert weight_BHTS[1].eq(0).all()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
    no_patch_BSI = y_BSI[:, :0]  # an image of no patches at all is missing, too
    assert layer(x_BTD, no_patch_BSI).equal(x_BTD)


# --8<-- [end:missing]


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.randoms())
def test_order_of_patches_does_not_matter(B, T, S, random):
    torch.manual_seed(random.randrange(1000))
    layer = opened(torch.float64)
    x_BTD, y_BSI, x_mask_BT, y_mask_BS = pair(B, T, S, torch.float64)
    order = torch.randperm(S)
    out_BTD = layer(x_BTD, y_BSI, x_mask_BT, y_mask_BS)
    moved_BTD = layer(x_BTD, y_BSI[:, order], x_mask_BT, y_mask_BS[:, order])
    assert largest_error(moved_BTD, out_BTD) <= error_budget(out_BTD, out_BTD)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.randoms())
def test_padded_batch_equals_each_pair_alone(B, T, S, random):
    torch.manual_seed(random.randrange(1000))
    layer = opened(torch.float64)
    x_BTD, y_BSI, x_mask_BT, y_mask_BS = pair(B, T, S, torch.float64)
    out_BTD = layer(x_BTD, y_BSI, x_mask_BT, y_mask_BS)
    for b in range(B):
        x_1TD, y_1SI = x_BTD[b : b + 1, x_mask_BT[b]], y_BSI[b : b + 1, y_mask_BS[b]]
        alone_1TD = layer(x_1TD, y_1SI)
        mixed_1TD = out_BTD[b : b + 1, x_mask_BT[b]]
        assert largest_error(mixed_1TD, alone_1TD) <= error_budget(alone_1TD, alone_1TD)


@given(st.randoms())
def test_weights_are_a_distribution_over_visible_patches(random):
    torch.manual_seed(random.randrange(1000))
    x_BTD, y_BSI, x_mask_BT, y_mask_BS = pair()
    weight_BHTS = opened().weights(x_BTD, y_BSI, x_mask_BT, y_mask_BS)
    sum_BHT = weight_BHTS.sum(-1)
    one_BHT = x_mask_BT[:, None].expand_as(sum_BHT).to(sum_BHT.dtype)
    assert largest_error(sum_BHT, one_BHT) <= error_budget(one_BHT, one_BHT)
    hidden_BHTS = ~y_mask_BS[:, None, None].expand_as(weight_BHTS)
    assert weight_BHTS[hidden_BHTS].eq(0).all()


def test_weights_are_those_of_forward():
    layer = opened(torch.float64)
    x_BTD, y_BSI, x_mask_BT, y_mask_BS = pair(dtype=torch.float64)
    weight_BHTS = layer.weights(x_BTD, y_BSI, x_mask_BT, y_mask_BS)
    value_BSM = layer.to_value(y_BSI)
    read = [
        weight_BHTS[:, h] @ value_BSM[..., 4 * h : 4 * h + 4]
        for h in range(layer.heads)
    ]
    by_hand = x_BTD + layer.gate.tanh() * layer.to_out(torch.cat(read, -1))
    out_BTD = layer(x_BTD, y_BSI, x_mask_BT, y_mask_BS)
    assert largest_error(out_BTD, by_hand) <= error_budget(by_hand, by_hand)


def test_pairs_of_a_batch_do_not_mix():
    layer = opened()
    x_BTD, y_BSI, x_mask_BT, y_mask_BS = pair()
    before = layer(x_BTD, y_BSI, x_mask_BT, y_mask_BS)
    x_BTD[1], y_BSI[1] = 100.0, -100.0
    after = layer(x_BTD, y_BSI, x_mask_BT, y_mask_BS)
    assert after[0].equal(before[0])
    assert after[2].equal(before[2])
    assert not after[1].equal(before[1])


def test_padding_of_text_passes_through():
    layer = opened()
    x_BTD, y_BSI, x_mask_BT, y_mask_BS = pair()
    out_BTD = layer(x_BTD, y_BSI, x_mask_BT, y_mask_BS)
    assert out_BTD[~x_mask_BT].equal(x_BTD[~x_mask_BT])


def test_gradcheck():
    layer = opened(torch.float64)
    x_BTD, y_BSI, x_mask_BT, y_mask_BS = pair(2, 2, 3, torch.float64)
    y_mask_BS[1] = False
    names, values = zip(*layer.named_parameters(), strict=True)

    def run(x, y, *parameters):
        return torch.func.functional_call(
            layer,
            dict(zip(names, parameters, strict=True)),
            (x, y, x_mask_BT, y_mask_BS),
        )

    inputs = (x_BTD.requires_grad_(), y_BSI.requires_grad_(), *values)
    assert torch.autograd.gradcheck(run, inputs)


def test_cost_is_the_formula():
    layer = CrossModalAttention(x_size=10, y_size=6, model_size=8, heads=2)
    for T, S in ((2, 3), (3, 50), (40, 2)):
        assert count_flops(layer, T, S) == 4 * 8 * (T * S + T * 10 + S * 6)


def test_co_attention_reads_both_ways_at_once():
    both = CoAttention(x_size=6, y_size=5, model_size=8, heads=2)
    both.x_reads.gate.data.fill_(0.5)
    both.y_reads.gate.data.fill_(0.5)
    x_BTD, y_BSI, x_mask_BT, y_mask_BS = pair()
    new_x, new_y = both(x_BTD, y_BSI, x_mask_BT, y_mask_BS)
    assert new_x.equal(both.x_reads(x_BTD, y_BSI, x_mask_BT, y_mask_BS))
    assert new_y.equal(both.y_reads(y_BSI, x_BTD, y_mask_BS, x_mask_BT))
    assert not new_x.equal(x_BTD)
    assert not new_y.equal(y_BSI)
    assert new_y[~y_mask_BS].equal(y_BSI[~y_mask_BS])


def test_co_attention_swaps_with_its_streams():
    both = CoAttention(x_size=6, y_size=5, model_size=8, heads=2)
    swapped = CoAttention(x_size=5, y_size=6, model_size=8, heads=2)
    both.x_reads.gate.data.fill_(0.5)
    swapped.x_reads, swapped.y_reads = both.y_reads, both.x_reads
    x_BTD, y_BSI, x_mask_BT, y_mask_BS = pair()
    new_x, new_y = both(x_BTD, y_BSI, x_mask_BT, y_mask_BS)
    again_y, again_x = swapped(y_BSI, x_BTD, y_mask_BS, x_mask_BT)
    assert again_x.equal(new_x)
    assert again_y.equal(new_y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"x": torch.zeros(3, 4, 5)},
            r"x has shape \(3, 4, 5\).*\(batch, positions, 6\)",
        ),
        ({"y": torch.zeros(3, 7)}, r"y has shape \(3, 7\).*\(batch, positions, 5\)"),
        ({"y": torch.zeros(2, 7, 5)}, "y has batch 2, x has 3"),
        ({"xm": torch.ones(3, 4)}, "x_mask is torch.float32"),
        ({"ym": torch.ones(3, 4, dtype=torch.bool)}, r"y_mask .*expected .*\(3, 7\)"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {
        "x": torch.zeros(3, 4, 6),
        "y": torch.zeros(3, 7, 5),
        "xm": None,
        "ym": None,
    }
    with pytest.raises(ValueError, match=message):
        opened()(*{**good, **change}.values())


@pytest.mark.parametrize("heads", [0, 3])
def test_heads_must_divide(heads):
    with pytest.raises(ValueError, match=f"heads is {heads}"):
        CrossModalAttention(6, 5, 8, heads)


def test_page():
    """What the page says of its cells' output."""
    out = run_main("snippets.multimodal.cross_modal").output
    assert "gate 0, output is the text: True" in out
    assert (
        "pair 0: output is the text: False  sums of weights: [1.0, 1.0, 1.0, 0.0]"
        in out
    )
    assert (
        "pair 1: output is the text: True  sums of weights: [0.0, 0.0, 0.0, 0.0]" in out
    )
    assert "text (2, 4, 32) image (2, 9, 48)" in out
    assert "32   256     8,192      82,944    10.1" in out
    assert "need_weights=True  NaNs per pair: [0, 128]" in out
    assert "need_weights=False NaNs per pair: [0, 0]" in out
    assert "std 0.0: gate after 50 steps 0.0000" in out
    assert "std 0.1: gate after 50 steps 0.0000" not in out
