"""Soft-capping: FlexAttention and Gemma 2 as oracles, bound, slope, order of the mask."""

import math
import re
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Gemma2Config
from transformers.models.gemma2.modeling_gemma2 import (
    Gemma2Attention,
    apply_rotary_pos_emb,
    eager_attention_forward,
)

from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import causality, convexity, no_input_mutated
from snippets.transformer.soft_capping import attend_capped, clear_hidden, soft_cap
from tests.running import run_main


# --8<-- [start:oracle]
def flex(q, k, v, cap, mask):
    """Let PyTorch's FlexAttention cap the scores, uncompiled: it never imports ours."""
    import warnings

    from torch.nn.attention.flex_attention import flex_attention

    def score_mod(score, b, h, t, s):
        return torch.where(mask[b, h, t, s], cap * torch.tanh(score / cap), -math.inf)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is not compiled
        return flex_attention(q, k, v, score_mod=score_mod)


# --8<-- [end:oracle]


# --8<-- [start:equals-flex]
def test_equals_flex_attention():
    """The largest error is within the budget that FlexAttention's own sets."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        q, k, v = (torch.randn(2, 3, n, 16).to(dtype) for n in (7, 9, 9))
        mask = torch.rand(2, 3, 7, 9) < 0.6
        mask[..., 0] = True
        for cap in (0.5, 2.0, 50.0):
            exact = flex(q.double(), k.double(), v.double(), cap, mask)
            error = largest_error(attend_capped(q, k, v, cap, mask), exact)
            allowed = error_budget(flex(q, k, v, cap, mask), exact)
            assert error <= allowed
        print(f"{dtype}: largest error {error:.1e}, allowed {allowed:.1e}")


# --8<-- [end:equals-flex]


# --8<-- [start:slope]
def test_slope():
    """Its derivative is 1 - (y / cap)²: 1 at zero, and never negative."""
    x = torch.linspace(-300, 300, 61, dtype=torch.float64, requires_grad=True)
    y = soft_cap(x, 50.0)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope, 1 - (y / 50.0) ** 2)
    assert slope[30] == 1
    assert slope.min() > 0
    print(f"slope at 0: {slope[30].item()}, at 300: {slope[-1].item():.1e}")


# --8<-- [end:slope]


# --8<-- [start:floor]
def test_no_weight_below_the_floor():
    """Two weights of a row differ by a factor of e^(2 cap) at most."""
    for cap in (0.5, 1.0, 3.0):
        q, k = torch.randn(2, 1, 2, 8, 4, dtype=torch.float64).mul(100).unbind(0)
        eye = torch.eye(8, dtype=torch.float64).expand(1, 2, 8, 8)
        weight = attend_capped(q, k, eye, cap)
        ratio = (weight.amax(-1) / weight.amin(-1)).max().item()
        assert 1 < ratio <= math.exp(2 * cap) * (1 + 1e-12)
        print(f"cap {cap}: ratio {ratio:.2f}, e^(2 cap) = {math.exp(2 * cap):.2f}")


# --8<-- [end:floor]


def test_gradients_equal_the_naive_ones():
    """Gradients of all inputs in three dtypes against Gemma 2's own code."""
    q, k, v = (torch.randn(2, 3, n, 8) for n in (5, 6, 6))
    mask = torch.rand(2, 3, 5, 6) < 0.6
    mask[..., 0] = True
    up = torch.randn(2, 3, 5, 8).double()

    def gemma(q, k, v):
        bias = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, -math.inf)
        stub = SimpleNamespace(num_key_value_groups=1, head_dim=8, training=False)
        out, _ = eager_attention_forward(stub, q, k, v, bias, softcap=2.0)
        return out.transpose(1, 2)

    def grads(f, dtype):
        leaves = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        return torch.autograd.grad((f(*leaves) * up.to(dtype)).sum(), leaves)

    def ours(q, k, v):
        return attend_capped(q, k, v, 2.0, mask)

    exact = grads(gemma, torch.float64)
    for one, other in zip(grads(ours, torch.float64), exact, strict=True):
        # gemma's softmax is in float32 whatever comes in
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    exact = grads(ours, torch.float64)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        pairs = zip(grads(ours, dtype), grads(gemma, dtype), exact, strict=True)
        for one, peer, truth in pairs:
            assert largest_error(one, truth) <= error_budget(peer, truth, 2)


def test_equals_gemma2_attention():
    """A whole layer of transformers' Gemma 2 from a small config, RoPE and GQA too."""
    config = Gemma2Config(
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        attn_logit_softcapping=0.7,
        num_hidden_layers=1,
        attn_implementation="eager",
    )
    layer, x = Gemma2Attention(config, 0).eval(), torch.randn(2, 6, 32)
    angle = torch.arange(6.0).unsqueeze(1) * torch.tensor([1.0, 0.3, 0.1, 0.03])
    cos, sin = (f(torch.cat([angle, angle], 1))[None] for f in (torch.cos, torch.sin))
    causal = torch.ones(2, 4, 6, 6, dtype=torch.bool).tril()
    bias = torch.zeros(2, 1, 6, 6).masked_fill(~causal[:, :1], -math.inf)
    with torch.no_grad():
        theirs, _ = layer(x, position_embeddings=(cos, sin), attention_mask=bias)
        q, k, v = (
            to(x).unflatten(2, (-1, 8)).transpose(1, 2)
            for to in (layer.q_proj, layer.k_proj, layer.v_proj)
        )
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        k, v = (one.repeat_interleave(2, dim=1) for one in (k, v))
        ours = attend_capped(q, k, v, 0.7, causal)
        ours = layer.o_proj(ours.transpose(1, 2).flatten(2))
        plain = F.scaled_dot_product_attention(q, k, v, causal)
        plain = layer.o_proj(plain.transpose(1, 2).flatten(2))
    torch.testing.assert_close(ours, theirs)
    assert (plain - theirs).abs().max() > 1e-3


def test_a_huge_cap_is_plain_attention():
    """With cap → ∞ nothing is left of the cap."""
    q, k, v = torch.randn(3, 2, 3, 5, 8, dtype=torch.float64).unbind(0)
    torch.testing.assert_close(
        attend_capped(q, k, v, 1e6), F.scaled_dot_product_attention(q, k, v)
    )


@given(st.floats(-1e4, 1e4), st.floats(0.01, 100.0))
def test_soft_cap(score, cap):
    """Odd, bounded by the cap and by the score itself, equal to math.tanh's."""
    x = torch.tensor([score, -score], dtype=torch.float64)
    y = soft_cap(x, cap)
    assert y[0] == -y[1]
    assert y[0].abs() <= min(cap, abs(score)) * (1 + 1e-12) + 1e-300
    assert math.isclose(
        y[0].item(), cap * math.tanh(score / cap), rel_tol=1e-12, abs_tol=1e-300
    )


@settings(max_examples=10)
@given(
    seed=st.integers(0, 999),
    B=st.integers(1, 2),
    H=st.integers(1, 3),
    T=st.integers(1, 6),
    S=st.integers(1, 6),
    cap=st.sampled_from([0.3, 2.0, 50.0]),
)
def test_equals_flex_on_any_shape(seed, B, H, T, S, cap):
    """One token, more queries than keys, rows of any mask."""
    torch.manual_seed(seed)
    q = torch.randn(B, H, T, 4, dtype=torch.float64)
    k = torch.randn(B, H, S, 4, dtype=torch.float64)
    v = torch.randn(B, H, S, 3, dtype=torch.float64)
    mask = torch.rand(B, H, T, S) < 0.5
    out = attend_capped(q, k, v, cap, mask)
    seen = mask.any(-1)
    torch.testing.assert_close(out[seen], flex(q, k, v, cap, mask)[seen])
    assert (out[~seen] == 0).all()


def test_properties():
    """The future changes nothing; outputs average values; inputs stay as they were."""

    def run(draw):
        T = draw.size("T", 2, 6)
        x, y = draw.normal(1, 2, T, 4), draw.normal(1, 2, T, 4)
        causal = torch.ones(1, 2, T, T, dtype=torch.bool).tril()
        causality(lambda x: attend_capped(x, x, x, 1.0, causal), x, draw, axis=2)
        convexity(lambda v: attend_capped(x, y, v, 1.0), draw.normal(1, 2, T, 3), draw)
        no_input_mutated(lambda q, k: attend_capped(q, k, k, 1.0, causal), x, y)

    hold(run)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_hidden_keys_may_hold_anything(poison):
    """Neither outputs nor gradients notice what stands behind the mask."""
    q, k, v = torch.randn(3, 1, 2, 5, 4, dtype=torch.float64).unbind(0)
    mask = torch.ones(1, 2, 5, 5, dtype=torch.bool)
    mask[..., 3:] = False
    mask[..., 4, :] = False
    short = attend_capped(q[:, :, :4], k[:, :, :3], v[:, :, :3], 2.0)
    q, k, v = q.clone(), k.clone(), v.clone()
    q[:, :, 4] = k[:, :, 3:] = v[:, :, 3:] = poison
    leaves = [one.requires_grad_() for one in (q, k, v)]
    out = attend_capped(*leaves, 2.0, mask)
    torch.testing.assert_close(out[:, :, :4], short)
    assert (out[:, :, 4] == 0).all()
    for grad in torch.autograd.grad(out.square().sum(), leaves):
        assert grad.isfinite().all()


def test_clear_hidden():
    """Only queries without keys and keys without queries are cleared."""
    q, k = torch.ones(1, 1, 3, 2), torch.ones(1, 1, 4, 2)
    mask = torch.ones(1, 1, 3, 4, dtype=torch.bool)
    mask[..., 1, :] = mask[..., 2] = False
    cleared_q, cleared_k = clear_hidden(q, k, mask)
    assert cleared_q[0, 0].tolist() == [[1, 1], [0, 0], [1, 1]]
    assert cleared_k[0, 0].tolist() == [[1, 1], [1, 1], [0, 0], [1, 1]]
    assert clear_hidden(q, k, None) == (q, k)


def test_huge_scores_and_strides():
    """Scores of ±1e4 and overflowing half precision stay finite; views are fine."""
    q = torch.full((1, 1, 2, 4), 100.0)
    k = torch.tensor([200.0, -200.0]).view(1, 1, 2, 1).expand(1, 1, 2, 4)
    eye = torch.eye(2).expand(1, 1, 2, 2)
    weight = attend_capped(q, k, eye, 3.0)
    assert torch.allclose(weight[..., 0], torch.sigmoid(torch.tensor(6.0)))
    assert attend_capped(q.half() * 300, k.half() * 10, eye.half(), 3.0)[
        ..., 0
    ].tolist() == [[[pytest.approx(0.9975, abs=1e-3)] * 2]]
    x = torch.randn(2, 5, 3, 8).transpose(1, 2)
    torch.testing.assert_close(
        attend_capped(x, x, x, 2.0), attend_capped(*[x.contiguous()] * 3, 2.0)
    )


def test_gradcheck():
    """Gradients agree with finite differences, with a mask."""
    q, k, v = (
        torch.randn(1, 2, n, 3, dtype=torch.float64, requires_grad=True)
        for n in (3, 4, 4)
    )
    mask = torch.rand(1, 2, 3, 4) < 0.7
    assert torch.autograd.gradcheck(
        lambda q, k, v: attend_capped(q, k, v, 0.8, mask), (q, k, v)
    )


def test_bad_input_is_named():
    """What came and what was expected."""
    x = torch.randn(1, 2, 3, 4)
    for cap in (0.0, -1.0, math.inf, math.nan):
        expected = f"^cap is {cap}, expected a positive finite number$"
        with pytest.raises(ValueError, match=expected):
            soft_cap(x, cap)
        with pytest.raises(ValueError, match=expected):
            attend_capped(x, x, x, cap)
    with pytest.raises(
        ValueError, match=r"^key has size 3, query has size 4: they must"
    ):
        attend_capped(x, x[..., :3], x, 1.0)
    with pytest.raises(ValueError, match=r"^mask has torch\.float32, expected"):
        attend_capped(x, x, x, 1.0, torch.ones(1, 2, 3, 3))


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.transformer.soft_capping").output
    for line in (
        "    5         4.98      9.9e-01",
        "   10         9.87      9.6e-01",
        "   50        38.08      4.2e-01",
        "  100        48.20      7.1e-02",
        "  500        50.00      0.0e+00",
        "cap  5: weight 0.0178",
        "cap 10: weight 0.7289",
        "cap 50: weight 1.0000, others 1.9e-22",
        "T = 1024: 1073.7 and 1073.7 MFLOPs, peak 34.75 and 49.00 MiB",
        "shifted by  0: 0.88 plain, 0.87 capped",
        "shifted by 10: 0.88 plain, 0.52 capped",
    ):
        assert line in out
    leaks = [float(x) for x in re.findall(r"first query leaks (.+)", out)]
    assert leaks[0] < 1e-15 < 0.2 < leaks[1] < 0.9 < leaks[2] < 1
    off = [float(x) for x in re.findall(r"off by (.+)", out)]
    assert off[0] < 0.01 < 0.1 < off[2] < 1 < off[3]
