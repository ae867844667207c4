"""Differential attention: DiffLlama as oracle, loops in float64, λ, cancellation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DiffLlamaConfig
from transformers.models.diffllama.modeling_diffllama import DiffLlamaAttention

from snippets.foundations.scaled_dot_product import attend
from snippets.properties.cost import count_flops
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import (
    batch_independence,
    causality,
    gradient_flow,
    permutation_equivariance,
)
from snippets.transformer.differential import (
    DifferentialAttention,
    differential,
    first_share,
)
from tests.running import run_main


def diffllama(layer, number):
    """Return transformers' module with our weights.

    It pairs head i with head i + H where we pair neighbors: rows move.
    """
    D, H = layer.to_q.in_features, layer.heads
    config = DiffLlamaConfig(
        hidden_size=D,
        num_attention_heads=2 * H,
        num_key_value_heads=2 * H,
        rms_norm_eps=1e-5,
    )
    config._attn_implementation = "eager"
    theirs = DiffLlamaAttention(config, layer_idx=number - 1)
    with torch.no_grad():
        for name in ("q", "k", "v"):
            weight = getattr(layer, f"to_{name}").weight
            moved = weight.unflatten(0, (H, 2, -1)).transpose(0, 1).reshape(D, D)
            getattr(theirs, f"{name}_proj").weight.copy_(moved)
        theirs.o_proj.weight.copy_(layer.to_out.weight)
        for i in (0, 1):
            getattr(theirs, f"lambda_q{i + 1}").copy_(layer.share_q[i])
            getattr(theirs, f"lambda_k{i + 1}").copy_(layer.share_k[i])
    return theirs


def run(theirs, x, mask=None):
    """Run it without rotating positions, our boolean mask added to its scores."""
    angle = torch.zeros(1, x.shape[1], theirs.head_dim, dtype=x.dtype)
    if mask is not None:
        lowest = torch.finfo(x.dtype).min
        mask = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, lowest)
        mask = mask.unsqueeze(1)
    return theirs(x, (angle.cos(), angle.sin()), mask)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_equals_diffllama(dtype):
    """Outputs within its own error, gradients too; a causal mask, the fifth layer."""
    layer = DifferentialAttention(32, 2, layer=5)
    with torch.no_grad():
        layer.share_q.mul_(5)  # λ far from its beginning
    layer, x = layer.to(dtype), torch.randn(2, 7, 32).to(dtype)
    mask = torch.ones(2, 7, 7, dtype=torch.bool).tril()
    theirs, exact = diffllama(layer, 5).to(dtype), diffllama(layer, 5).double()
    results = []
    for f in (
        lambda x: layer(x, mask),
        lambda x: run(theirs, x, mask),
        lambda x: run(exact, x.double(), mask),
    ):
        leaf = x.clone().requires_grad_()
        out = f(leaf)
        results.append((out, torch.autograd.grad(out.square().sum(), leaf)[0]))
    for ours, peer, true in zip(*results, strict=True):
        assert largest_error(ours, true) <= error_budget(peer, true, 2.0)


# --8<-- [start:equals-loops]
def test_equals_loops():
    """Number by number from the formula: two softmaxes, one share, RMS norm, (1 − λ_init)."""
    layer, x = (
        DifferentialAttention(12, 2, layer=3).double(),
        torch.randn(4, 12).double(),
    )
    share, start = layer.share().detach().item(), 0.8 - 0.6 * math.exp(-0.3 * 2)
    q, k, v = (
        (x @ to.weight.detach().T) for to in (layer.to_q, layer.to_k, layer.to_v)
    )
    heads = []
    for h in (0, 6):  # a head owns six channels, three for each map
        rows = []
        for t in range(4):
            maps = []
            for i in (h, h + 3):
                scores = [math.exp(q[t, i : i + 3] @ k[s, i : i + 3] / 3**0.5)
                          for s in range(4)]  # fmt: skip
                maps.append([one / sum(scores) for one in scores])
            out = sum(
                (maps[0][s] - share * maps[1][s]) * v[s, h : h + 6] for s in range(4)
            )
            rows.append((1 - start) * out / (out.square().mean() + 1e-5).sqrt())
        heads.append(torch.stack(rows))
    expected = torch.cat(heads, dim=1) @ layer.to_out.weight.T
    error = (layer(x[None])[0] - expected).abs().max().item()
    assert error < 1e-12
    print(f"λ = {share:.3f}, largest difference {error:.0e}")


# --8<-- [end:equals-loops]


# --8<-- [start:rows]
def test_rows_sum_to_what_is_left():
    """With V = 1 the output is the weights: rows sum to 1 − λ, and some are negative."""
    q, k = torch.randn(1, 1, 6, 6).double(), torch.randn(1, 1, 6, 6).double()
    for share in (0.0, 0.2, 0.8, 1.0):
        weight = differential(q, k, torch.eye(6).double()[None, None], share)
        torch.testing.assert_close(
            weight.sum(-1), torch.full((1, 1, 6), 1 - share).double()
        )
        negative = (weight < 0).double().mean().item()
        assert (negative == 0) == (share == 0)
        print(f"λ = {share}: rows sum to {1 - share:.1f}, {negative:.0%} are negative")


# --8<-- [end:rows]


def test_equal_maps_cancel():
    """λ = 1 and two equal maps: nothing is left; λ = 0: plain attention of half the size."""
    half, v = torch.randn(2, 3, 5, 4).double(), torch.randn(2, 3, 5, 8).double()
    both = torch.cat([half, half], dim=-1)
    assert differential(both, both, v, 1.0).abs().max() < 1e-15
    torch.testing.assert_close(differential(both, both, v, 0.0), attend(half, half, v))


def test_share_begins_near_its_constant_and_can_be_learned():
    """Both exp begin near 1 and cancel; the formula is that of the paper."""
    for number, value in ((1, 0.2), (2, 0.8 - 0.6 * math.exp(-0.3)), (40, 0.8)):
        assert first_share(number) == pytest.approx(value, abs=1e-5)
        layer = DifferentialAttention(64, 2, number)
        assert abs(layer.share().item() - value) < 0.3
    layer = DifferentialAttention(4, 2, 1)
    with torch.no_grad():
        layer.share_q.copy_(torch.tensor([[2.0], [3.0]]))
        layer.share_k.copy_(torch.tensor([[0.5], [0.1]]))
    expected = math.exp(1) - math.exp(0.3) + 0.2
    assert layer.share().item() == pytest.approx(expected)
    assert DifferentialAttention(640, 2, 1).share_q.std().item() == pytest.approx(
        0.1, abs=0.02
    )
    assert DifferentialAttention(640, 2, 1).share_k.std().item() == pytest.approx(
        0.1, abs=0.02
    )


def test_gradients_reach_every_weight():
    """The four vectors of λ, too."""
    torch.manual_seed(1)
    gradient_flow(
        DifferentialAttention(8, 2, 2).double(), torch.randn(2, 4, 8).double()
    )


def test_properties():
    """Causal under a causal mask, permutations, samples."""
    layer = DifferentialAttention(8, 2, 2).double()
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    hold(lambda draw: causality(
        lambda x: layer(x, mask.expand(len(x), 5, 5)), draw.normal(2, 5, 8), draw
    ))  # fmt: skip
    hold(lambda draw: permutation_equivariance(layer, draw.normal(2, 4, 8), draw))
    hold(lambda draw: batch_independence(layer, draw.normal(3, 4, 8), draw))


@given(
    seed=st.integers(0, 99),
    H=st.integers(1, 3),
    T=st.integers(1, 5),
    S=st.integers(1, 5),
    K=st.integers(1, 3),
)
def test_function_equals_two_softmaxes(seed, H, T, S, K):
    """Any shape, T ≠ S, any mask: (softmax − λ·softmax)·V by masked scores."""
    torch.manual_seed(seed)
    q, k, v = (torch.randn(2, H, n, 2 * K).double() for n in (T, S, S))
    mask = torch.rand(2, H, T, S) < 0.7
    mask[..., 0] = True
    maps = [
        (q[..., part] @ k[..., part].mT / K**0.5)
        .masked_fill(~mask, -math.inf)
        .softmax(-1)
        for part in (slice(0, K), slice(K, 2 * K))
    ]
    expected = (maps[0] - 0.3 * maps[1]) @ v
    torch.testing.assert_close(differential(q, k, v, 0.3, mask), expected)
    torch.testing.assert_close(
        differential(q, k, v, torch.tensor(0.3).double(), mask), expected
    )


def test_blind_queries_and_nan_behind_the_mask():
    """Zeros for who sees nothing; padding may hold NaN, forward and backward."""
    layer, x = DifferentialAttention(8, 2, 1).double(), torch.randn(1, 5, 8).double()
    mask = torch.ones(1, 5, 5, dtype=torch.bool)
    mask[..., 3:], mask[:, 1], mask[:, 3:] = False, False, False
    expected = layer(x, mask)
    assert not expected[:, 1].any()
    for padding in (math.nan, math.inf):
        x[:, 3:] = padding
        leaf = x.clone().requires_grad_()
        out = layer(leaf, mask)
        torch.testing.assert_close(out, expected)
        assert torch.autograd.grad(out.sum(), leaf)[0][:, :3].isfinite().all()


def test_huge_scores_and_views():
    """Logits of ±1e4 stay finite; a transposed input gives the same."""
    layer, x = DifferentialAttention(8, 2, 1), torch.randn(6, 2, 8).transpose(0, 1)
    torch.testing.assert_close(layer(x), layer(x.contiguous()))
    assert layer(x * 300).isfinite().all()


def test_gradcheck():
    """Finite differences agree, λ included."""
    leaves = [torch.randn(1, 2, 3, 4).double().requires_grad_() for _ in range(3)]
    share = torch.tensor(0.4).double().requires_grad_()
    assert torch.autograd.gradcheck(differential, (*leaves, share))


def test_flops():
    """Projections 8·T·D², two maps 6·T²·D: half more than multi-head attention."""
    layer = DifferentialAttention(16, 2, 1)
    flops = count_flops(lambda: layer(torch.randn(3, 10, 16)))
    assert flops == 3 * (8 * 10 * 16**2 + 6 * 10**2 * 16)


def test_no_bias_and_four_projections():
    """4·D² weights and 4·K for λ; the norm of a head has none."""
    layer = DifferentialAttention(16, 2, 1)
    assert sum(p.numel() for p in layer.parameters()) == 4 * 16**2 + 4 * 4


def test_bad_input_is_named():
    """What came and what was expected."""
    q = torch.randn(1, 1, 2, 3)
    with pytest.raises(ValueError, match=r"^query has size 3, expected an even size$"):
        differential(q, q, q, 0.5)
    with pytest.raises(ValueError, match=r"^layer is 0, expected 1 or more$"):
        DifferentialAttention(8, 2, 0)
    for heads, size in ((3, 8), (0, 8), (4, 12)):
        with pytest.raises(
            ValueError,
            match=f"^heads is {heads}, model_size is {size}: twice the heads must "
            "divide it$",
        ):
            DifferentialAttention(size, heads, 1)
    layer, x = DifferentialAttention(8, 2, 1), torch.randn(2, 3, 8)
    for wrong in (x[..., :7], x[0]):
        shape = str(tuple(wrong.shape)).replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(
            ValueError,
            match=rf"^x has shape {shape}, expected \(batch, positions, 8\)$",
        ):
            layer(wrong)
    mask = torch.ones(3, 3, dtype=torch.bool)
    with pytest.raises(
        ValueError, match=r"^mask has shape \(3, 3\), expected \(2, 3, 3\)$"
    ):
        layer(x, mask)


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.transformer.differential").output
    assert "{1: 0.2, 2: 0.36, 4: 0.56, 8: 0.73, 16: 0.79, 32: 0.8}" in out
    assert "(2, 6, 64) λ = " in out
    assert "λ = 0.0: needle 0.297, all others 0.703, sum 1.00, smallest 0.000" in out
    assert "λ = 0.8: needle 0.288, all others 0.088, sum 0.20, smallest -0.051" in out
    assert "multi-head, 8 heads: 4·T²·D FLOPs" in out
    assert "differential, 4 heads: 6·T²·D FLOPs" in out
    assert "heads paired otherwise: outputs differ by 0.0" not in out
    assert "first layer, counted from 1: λ_init = 0.200" in out
    assert "first layer, counted from 0: λ_init = -0.010" in out
