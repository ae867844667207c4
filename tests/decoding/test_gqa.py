"""Grouped-query attention: PyTorch's enable_gqa, repeated heads, Llama as oracles."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention

from snippets.decoding.gqa import (
    GroupedQueryAttention,
    convert,
    grouped_attend,
    pool_heads,
)
from snippets.properties.cost import count_flops, largest_bytes
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import (
    batch_independence,
    causality,
    convexity,
    gradient_flow,
    no_input_mutated,
    padding_invariance,
    permutation_equivariance,
    registered_parameters,
)
from tests.running import run_main


# --8<-- [start:equals-enable-gqa]
def test_equals_enable_gqa():
    """Equal to PyTorch with enable_gqa=True: MHA, GQA, MQA, outputs and gradients."""
    for G in (8, 2, 1):
        shapes = ((2, 8, 5, 16), (2, G, 7, 16), (2, G, 7, 12))
        inputs = [torch.randn(shape) for shape in shapes]
        mask = torch.rand(2, 8, 5, 7) < 0.7
        mask[0, 0, 0] = False  # this query of this head sees nothing
        results = []
        for dtype, function in (
            (torch.float32, grouped_attend),
            (torch.float32, F.scaled_dot_product_attention),
            (torch.float64, F.scaled_dot_product_attention),
        ):
            leaves = [x.to(dtype).requires_grad_() for x in inputs]
            options = {} if function is grouped_attend else {"enable_gqa": True}
            out = function(*leaves, mask, **options)
            results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
        assert results[0][0][0, 0, 0].eq(0).all()
        names = ("out", "dq", "dk", "dv")
        for name, ours, theirs, exact in zip(names, *results, strict=True):
            error, allowed = largest_error(ours, exact), error_budget(theirs, exact)
            assert error <= allowed, name
        print(f"{G} kv heads: dv off by {error:.1e}, allowed {allowed:.1e}")


# --8<-- [end:equals-enable-gqa]


# --8<-- [start:equals-mha]
def test_equals_mha_with_repeated_weights():
    """A grouped layer is multi-head attention whose K/V heads are equal in a group."""
    layer, x = GroupedQueryAttention(32, 8, 2).double(), torch.randn(2, 6, 32).double()
    peer = nn.MultiheadAttention(32, 8, bias=False, batch_first=True).double()
    repeated = [
        to.weight.unflatten(0, (2, 4)).repeat_interleave(4, dim=0).flatten(0, 1)
        for to in (layer.to_k, layer.to_v)
    ]
    with torch.no_grad():
        peer.in_proj_weight.copy_(torch.cat([layer.to_q.weight, *repeated]))
        peer.out_proj.weight.copy_(layer.to_out.weight)
    torch.testing.assert_close(layer(x), peer(x, x, x)[0])
    print("2 kv heads, each used by 4 heads, equal 8 repeated ones")


# --8<-- [end:equals-mha]


# --8<-- [start:pooling-inverts]
def test_pooling_undoes_repeating():
    """Converting is exact where the heads of a group are equal, and only there."""
    grouped, x = (
        GroupedQueryAttention(24, 6, 2).double(),
        torch.randn(1, 5, 24).double(),
    )
    full = GroupedQueryAttention(24, 6, 6).double()
    weights = grouped.state_dict()
    for name in ("to_k.weight", "to_v.weight"):
        heads = weights[name].unflatten(0, (2, 4))
        weights[name] = heads.repeat_interleave(3, dim=0).flatten(0, 1)
    full.load_state_dict(weights)
    torch.testing.assert_close(convert(full, 2)(x), full(x))
    with torch.no_grad():
        full.to_k.weight[:4] += 1  # now head 0 differs from its group
    off = (convert(full, 2)(x) - full(x)).abs().max().item()
    assert off > 1e-3
    print(f"equal heads: no difference; one head moved: {off:.2f}")


# --8<-- [end:pooling-inverts]


# --8<-- [start:no-copies]
def test_keys_and_values_are_not_repeated():
    """No tensor of a decoding step is larger than the keys of the G heads."""
    q, k = torch.randn(1, 32, 1, 64), torch.randn(1, 4, 1000, 64)
    largest = largest_bytes(lambda: grouped_attend(q, k, k))
    repeated = largest_bytes(
        lambda: F.scaled_dot_product_attention(
            q, k.repeat_interleave(8, 1), k.repeat_interleave(8, 1)
        )
    )
    assert largest <= k.nbytes < repeated
    print(f"largest tensor: grouped {largest / k.nbytes:g} of the keys, ", end="")
    print(f"repeated {repeated / k.nbytes:g}")


# --8<-- [end:no-copies]


def draw(seed, B=2, G=2, M=3, T=4, S=5, K=4, V=3):
    """Return queries, keys, values and a mask in which some rows are empty."""
    torch.manual_seed(seed)
    q, k = torch.randn(B, G * M, T, K).double(), torch.randn(B, G, S, K).double()
    return q, k, torch.randn(B, G, S, V).double(), torch.rand(B, G * M, T, S) < 0.6


@given(
    seed=st.integers(0, 999),
    B=st.integers(1, 2),
    G=st.integers(1, 3),
    M=st.integers(1, 3),
    T=st.integers(1, 5),
    S=st.integers(1, 5),
    masked=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
def test_equals_repeated_heads_on_any_shape(seed, B, G, M, T, S, masked, dtype):
    """Repeating by hand and attending head by head, in three dtypes."""
    q, k, v, mask = draw(seed, B, G, M, T, S)
    q, k, v = (x.to(dtype) for x in (q, k, v))
    mask = mask if masked else None
    exact = torch.zeros(B, G * M, T, 3, dtype=torch.float64)
    for h in range(G * M):
        one = None if mask is None else mask[:, h]
        exact[:, h] = F.scaled_dot_product_attention(
            q[:, h].double(), k[:, h // M].double(), v[:, h // M].double(), one
        )
    repeated = [x.repeat_interleave(M, 1) for x in (k, v)]
    peer = F.scaled_dot_product_attention(q, *repeated, mask)
    ours = grouped_attend(q, k, v, mask)
    assert largest_error(ours, exact) <= error_budget(peer, exact)


@given(
    seed=st.integers(0, 99),
    G=st.integers(1, 3),
    M=st.integers(1, 3),
    T=st.integers(1, 6),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_layer_equals_llama(seed, G, M, T, dtype):
    """Transformers' LlamaAttention with its rotation turned off (angle 0)."""
    torch.manual_seed(seed)
    H, D = G * M, 4 * G * M
    layer, x = GroupedQueryAttention(D, H, G), torch.randn(2, T, D)
    causal = torch.ones(T, T, dtype=torch.bool).tril().expand(2, T, T)
    config = LlamaConfig(
        hidden_size=D,
        num_attention_heads=H,
        num_key_value_heads=G,
        attn_implementation="sdpa",
    )
    llama = LlamaAttention(config, layer_idx=0)
    names = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "o_proj"}
    llama.load_state_dict(
        {
            f"{names[key.split('.')[0]]}.weight": value
            for key, value in layer.to(dtype).state_dict().items()
        }
    )
    results = []
    for module, kind in ((layer, dtype), (llama, dtype), (llama, torch.float64)):
        module.to(kind)
        inner = x.to(dtype).to(kind)
        if module is layer:
            results.append(module(inner, causal))
        else:
            still = torch.ones(2, T, 4, dtype=kind), torch.zeros(2, T, 4, dtype=kind)
            results.append(module(inner, still, causal[:, None])[0])
    assert largest_error(results[0], results[2]) <= error_budget(*results[1:])


def test_gradients():
    """Gradcheck of function and layer; every parameter is reached and registered."""
    q, k, v, mask = draw(0, B=1, M=2, T=2, S=3, K=2, V=2)
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    assert torch.autograd.gradcheck(grouped_attend, (q, k, v, mask))
    layer = GroupedQueryAttention(12, 6, 2).double()
    x = torch.randn(1, 4, 12).double()
    small = x[:, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(layer, small)
    gradient_flow(layer, x)
    registered_parameters(layer)
    assert {n: tuple(p.shape) for n, p in layer.named_parameters()} == {
        "to_q.weight": (12, 12),
        "to_k.weight": (4, 12),
        "to_v.weight": (4, 12),
        "to_out.weight": (12, 12),
    }


def test_properties_of_the_layer():
    """Causal under a causal mask, equivariant without one, row by row."""
    layer = GroupedQueryAttention(12, 6, 2).double()

    def causal(x):
        T = x.shape[1]
        return layer(x, torch.ones(T, T, dtype=torch.bool).tril().expand(len(x), T, T))

    def padded(x, keep):
        return layer(x, keep.unsqueeze(1).expand(-1, x.shape[1], -1))

    hold(lambda draw: causality(causal, draw.normal(2, 5, 12), draw))
    hold(lambda draw: permutation_equivariance(layer, draw.normal(1, 5, 12), draw))
    hold(lambda draw: batch_independence(layer, draw.normal(3, 4, 12), draw))
    hold(lambda draw: padding_invariance(padded, draw.normal(2, 5, 12), draw))
    hold(
        lambda draw: convexity(
            lambda v: grouped_attend(torch.ones_like(v), v, v),
            draw.normal(1, 2, 5, 3),
            draw,
        )
    )
    no_input_mutated(layer, torch.randn(2, 4, 12).double())
    no_input_mutated(grouped_attend, *draw(1))


def test_each_head_has_a_mask_of_its_own():
    """Heads of one group may see different keys; nobody sees NaN behind a mask."""
    q, k, v, mask = draw(3)
    mask[0, 1, 2] = False
    expected = grouped_attend(q, k, v, mask)
    assert expected[0, 1, 2].eq(0).all()
    mask[..., 3] = False
    clean = grouped_attend(q, k, v, mask)
    for bad in (math.nan, math.inf):
        k[..., 3, :] = bad
        v[..., 3, :] = bad
        torch.testing.assert_close(grouped_attend(q, k, v, mask), clean)
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        grouped_attend(*leaves, mask).sum().backward()
        assert all(x.grad.isfinite().all() for x in leaves)
    # Hidden from one head of the group only: its values must not leak either.
    q, k, v, mask = draw(4)
    mask[:] = True
    mask[:, 0, :, 1] = False
    clean = grouped_attend(q, k, v, mask)[:, 0]
    v[:, :, 1] = math.nan
    torch.testing.assert_close(grouped_attend(q, k, v, mask)[:, 0], clean)


def test_huge_scores_and_views():
    """A lookup at ±1e4; transposed inputs give what copies give."""
    q, k, v, mask = draw(5)
    sharp = grouped_attend(q * 1e4, k, v)
    best = torch.einsum("bhtk,bhsk->bhts", q, k.repeat_interleave(3, 1)).argmax(-1)
    expected = v.repeat_interleave(3, 1).take_along_dim(best.unsqueeze(-1), 2)
    torch.testing.assert_close(sharp, expected)
    views = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    assert not views[0].is_contiguous()
    torch.testing.assert_close(
        grouped_attend(*views, mask), grouped_attend(q, k, v, mask)
    )


def test_pooled_heads_are_means_of_neighbors():
    """Head g is the mean of heads g·M to g·M + M - 1."""
    heads = torch.randn(6, 4, 5).double()
    for G in (1, 2, 3, 6):
        M = 6 // G
        expected = [sum(heads[g * M + m] for m in range(M)) / M for g in range(G)]
        torch.testing.assert_close(pool_heads(heads, G), torch.stack(expected))


def test_convert():
    """Keys are means of keys; queries, output and dtype stay; steps may be chained."""
    full, x = GroupedQueryAttention(24, 6, 6).double(), torch.randn(2, 5, 24).double()
    before = {name: p.clone() for name, p in full.named_parameters()}
    for G in (6, 3, 2, 1):
        new = convert(full, G)
        assert (new.heads, new.kv_heads) == (6, G)
        assert new.to_q.weight.equal(full.to_q.weight)
        assert new.to_out.weight.equal(full.to_out.weight)
        assert new.to_q.weight.data_ptr() != full.to_q.weight.data_ptr()
        for ours, theirs in ((new.to_k, full.to_k), (new.to_v, full.to_v)):
            expected = theirs(x).view(2, 5, G, 6 // G, 4).mean(3).flatten(2)
            torch.testing.assert_close(ours(x), expected)
            assert ours.weight.dtype == torch.float64
            assert ours.weight.requires_grad
    torch.testing.assert_close(convert(convert(full, 3), 1)(x), convert(full, 1)(x))
    assert all(before[name].equal(p) for name, p in full.named_parameters())


def test_work_and_sizes():
    """Scores cost the same whatever G is; only the K and V projections shrink."""
    for G in (6, 3, 1):
        layer = GroupedQueryAttention(24, 6, G)
        flops = count_flops(lambda layer=layer: layer(torch.randn(2, 10, 24)))
        projections = 2 * 10 * 24 * (2 * 24 + 2 * G * 4)
        assert flops == 2 * (projections + 4 * 10**2 * 24)


def test_bad_input_is_named():
    """What came and what was expected, in the caller's terms."""
    q, k, v, mask = draw(0)
    for args, sentence in (
        ((q, k[:, :1], v), "value has 2 heads, key has 1: they must agree"),
        (
            (q[:, :5], k, v),
            "key has 2 heads, query has 5: the first must divide the second",
        ),
        (
            (q, k[:, :0], v[:, :0]),
            "key has 0 heads, query has 6: the first must divide the second",
        ),
        (
            (q[:1], k, v),
            r"key has batch and heads \(2, 6\), query has batch and heads \(1, 6\): "
            "they must agree",
        ),
        ((q[..., :3], k, v), "key has size 4, query has size 3: they must agree"),
        (
            (q, k, v[:, :, :2]),
            "value has positions 2, key has positions 5: they must agree",
        ),
        (
            (q, k, v, mask[:, :2]),
            r"mask has shape \(2, 2, 4, 5\), expected \(2, 6, 4, 5\)",
        ),
        ((q, k[0], v), r"key has shape \(2, 5, 4\), expected 4 axes"),
        ((q, k, v[0]), r"value has shape \(2, 5, 3\), expected 4 axes"),
        ((q[0], k, v), r"query has shape \(6, 4, 4\), expected 4 axes"),
    ):
        with pytest.raises(ValueError, match=f"^{sentence}$"):
            grouped_attend(*args)
    q, k, v, _ = draw(0, B=3)  # batch and heads differ, so that they cannot be mixed up
    with pytest.raises(ValueError, match=r"^value has 2 heads, key has 1: they must"):
        grouped_attend(q, k[:, :1], v)
    for sizes, sentence in (
        ((8, 3, 1), "heads is 3, model_size is 8: heads must divide it"),
        ((8, 0, 1), "heads is 0, model_size is 8: heads must divide it"),
        ((8, 4, 3), "kv_heads is 3, heads is 4: kv_heads must divide it"),
        ((8, 4, 0), "kv_heads is 0, heads is 4: kv_heads must divide it"),
        ((8, 4, 8), "kv_heads is 8, heads is 4: kv_heads must divide it"),
    ):
        with pytest.raises(ValueError, match=f"^{sentence}$"):
            GroupedQueryAttention(*sizes)
    layer, x = GroupedQueryAttention(8, 4, 2), torch.randn(2, 3, 8)
    for bad, shape in ((x[..., :7], "2, 3, 7"), (x[0], "3, 8")):
        with pytest.raises(
            ValueError,
            match=rf"^x has shape \({shape}\), expected \(batch, positions, 8\)$",
        ):
            layer(bad)
    with pytest.raises(
        ValueError, match=r"^mask has shape \(3, 3\), expected \(2, 3, 3\)$"
    ):
        layer(x, torch.ones(3, 3, dtype=torch.bool))
    for wrong in (3, 0, 4):
        with pytest.raises(
            ValueError,
            match=f"^kv_heads is {wrong}, the layer has 2: kv_heads must divide it$",
        ):
            convert(layer, wrong)


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.decoding.gqa").output
    for line in (
        "MQA output (2, 6, 64) W_K (8, 64)",
        "8 heads to 8: the output changes by 0%",
        "      32               2048                  512                     256",
        "       8                512                  128                      64",
        "       1                 64                   16                       8",
        "8 kv heads: 25165824 FLOPs, 16777216 of them",
        "1 kv heads: 21495808 FLOPs, 16777216 of them",
        "copied: 64 MiB at 4096 keys",
        "grouped: 16 MiB at 4096 keys",
        "repeat_interleave: query heads 0 to 3 read kv heads [0, 0, 1, 1]",
        "repeat: query heads 0 to 3 read kv heads [0, 1, 0, 1]",
        "summed: (2, 8, 6, 8), heads 0 and 1 differ by 0.00",
        "(B, T, H, K): token 0 changed, tokens 1 to 5 move by 0.00",
    ):
        assert line in out
    assert "grouped: (2, 8, 6, 8), heads 0 and 1 differ by 0.0" not in out
    assert "(B, H, T, K): token 0 changed, tokens 1 to 5 move by 0.0" not in out
