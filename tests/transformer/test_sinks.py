"""Attention sinks: SDPA with an extra key, gpt-oss as oracle, stability, the cache."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from transformers import GptOssConfig
from transformers.models.gpt_oss.modeling_gpt_oss import (
    GptOssAttention,
    apply_rotary_pos_emb,
    eager_attention_forward,
)

from snippets.foundations.scaled_dot_product import attend
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import cached_equals_full, causality, no_input_mutated
from snippets.transformer.sinks import (
    KINDS,
    Finder,
    attend_with_sink,
    error,
    evict,
    find_payloads,
    sink_softmax,
    train,
    window_mask,
)
from tests.running import run_main


# --8<-- [start:extra-key]
def extra_key(q, k, v, sink, mask):
    """Let PyTorch's SDPA see one more key, with logit `sink` and a value of zeros."""
    B, H, T, _ = mask.shape
    k, v = (torch.cat([one, torch.zeros_like(one[:, :, :1])], 2) for one in (k, v))
    bias = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, -math.inf)
    last = sink.view(1, H, 1, 1).expand(B, H, T, 1)
    bias = torch.cat([bias, last], 3)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, bias)


# --8<-- [end:extra-key]


# --8<-- [start:equals-extra-key]
def test_equals_an_extra_key():
    """Output and gradients, in three dtypes, with rows that see nothing at all."""
    q, k, v = (torch.randn(2, 3, n, 16) for n in (5, 7, 7))
    sink, mask = torch.tensor([-3.0, 0.0, 5.0]), torch.rand(2, 3, 5, 7) < 0.5
    mask[:, :, 0] = False

    def ours(q, k, v, sink):
        return attend_with_sink(q, k, v, sink, mask)

    def theirs(q, k, v, sink):
        return extra_key(q, k, v, sink, mask)

    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        leaves = [x.to(dtype).requires_grad_() for x in (q, k, v, sink)]
        exact = [x.detach().double().requires_grad_() for x in leaves]
        results = []
        for f, inputs in ((ours, leaves), (theirs, leaves), (theirs, exact)):
            out = f(*inputs)
            results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
        for number, (one, peer, truth) in enumerate(zip(*results, strict=True)):
            factor = 1 if number == 0 else 2  # their backward rounds elsewhere
            assert largest_error(one, truth) <= error_budget(peer, truth, factor)
        off = largest_error(results[0][0], results[2][0])
        print(f"{dtype}: largest error of the output {off:.1e}")


# --8<-- [end:equals-extra-key]


# --8<-- [start:gate]
def test_a_sink_is_a_gate():
    """Plain attention, times sigmoid(logsumexp of the scores - sink)."""
    q, k, v = torch.randn(3, 2, 3, 5, 8, dtype=torch.float64).unbind(0)
    sink = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    total = torch.logsumexp(q @ k.mT / 8**0.5, dim=-1, keepdim=True)
    gate = torch.sigmoid(total - sink.view(3, 1, 1))
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attend_with_sink(q, k, v, sink), gate * plain)
    print(f"gates from {gate.min():.2f} to {gate.max():.2f}")


# --8<-- [end:gate]


# --8<-- [start:rolling]
def test_rolling_cache_equals_the_mask():
    """Decoding with eviction = the full pass under the window mask."""
    x = torch.randn(3, 1, 2, 20, 8, dtype=torch.float64)
    for window, first in ((1, 0), (4, 0), (4, 2), (30, 3)):
        mask = window_mask(20, 20, window, first).expand(1, 2, 20, 20)
        full = torch.nn.functional.scaled_dot_product_attention(*x, mask)
        k = v = x[0, :, :, :0]
        for t in range(20):
            k = evict(torch.cat([k, x[1, :, :, t : t + 1]], 2), window, first)
            v = evict(torch.cat([v, x[2, :, :, t : t + 1]], 2), window, first)
            out = attend(x[0, :, :, t : t + 1], k, v)
            torch.testing.assert_close(out, full[:, :, t : t + 1])
        print(f"window {window:2}, first {first}: {k.shape[2]:2} of 20 keys kept")


# --8<-- [end:rolling]


def test_equals_gpt_oss_attention():
    """A whole layer of transformers' gpt-oss from a small config."""
    config = GptOssConfig(
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_hidden_layers=1,
        layer_types=["full_attention"],
        attn_implementation="eager",
    )
    layer, x = GptOssAttention(config, 0).eval(), torch.randn(2, 6, 32)
    angle = torch.arange(6.0).unsqueeze(1) * torch.tensor([1.0, 0.3, 0.1, 0.03])
    cos, sin = angle.cos()[None], angle.sin()[None]
    mask = window_mask(6, 6, 3).expand(2, 4, 6, 6)
    bias = torch.zeros(2, 1, 6, 6).masked_fill(~mask[:, :1], -math.inf)
    with torch.no_grad():
        layer.sinks.copy_(torch.tensor([-2.0, 0.0, 1.0, 4.0]))
        theirs, _ = layer(x, position_embeddings=(cos, sin), attention_mask=bias)
        q, k, v = (
            to(x).unflatten(2, (-1, 8)).transpose(1, 2)
            for to in (layer.q_proj, layer.k_proj, layer.v_proj)
        )
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        k, v = (one.repeat_interleave(2, dim=1) for one in (k, v))
        out = attend_with_sink(q, k, v, layer.sinks, mask)
        torch.testing.assert_close(layer.o_proj(out.transpose(1, 2).flatten(2)), theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_equal_those_of_gpt_oss(dtype):
    """Their eager function as peer, at scores up to ±30."""

    class Stub(torch.nn.Module):
        num_key_value_groups, sinks = 1, torch.tensor([-9.0, 3.0, 30.0], dtype=dtype)

    q, k, v = torch.randn(3, 2, 3, 7, 16).mul(3).to(dtype).unbind(0)
    zero = torch.zeros(1, dtype=dtype)
    peer, _ = eager_attention_forward(Stub().eval(), q, k, v, zero, scaling=0.25)
    mask = torch.ones(2, 3, 7, 7, dtype=torch.bool)
    exact = extra_key(q.double(), k.double(), v.double(), Stub.sinks.double(), mask)
    allowed = error_budget(peer.transpose(1, 2), exact)
    assert largest_error(attend_with_sink(q, k, v, Stub.sinks), exact) <= allowed


@given(
    seed=st.integers(0, 999),
    B=st.integers(1, 2),
    H=st.integers(1, 3),
    T=st.integers(1, 5),
    S=st.integers(1, 5),
)
def test_equals_an_extra_key_on_any_shape(seed, B, H, T, S):
    """One token, more queries than keys, any mask."""
    torch.manual_seed(seed)
    q = torch.randn(B, H, T, 4, dtype=torch.float64)
    k = torch.randn(B, H, S, 4, dtype=torch.float64)
    v = torch.randn(B, H, S, 3, dtype=torch.float64)
    sink = torch.randn(H, dtype=torch.float64) * 3
    mask = torch.rand(B, H, T, S) < 0.5
    out = attend_with_sink(q, k, v, sink, mask)
    torch.testing.assert_close(out, extra_key(q, k, v, sink, mask))
    assert (out[~mask.any(-1)] == 0).all()


def test_sum_of_weights():
    """1 - the share of the sink; a sink far below is no sink, one far above takes all."""
    score = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    sink = torch.tensor([-1e4, 0.0, 1e4], dtype=torch.float64)
    weight = sink_softmax(score, sink)
    torch.testing.assert_close(weight[:, 0], torch.softmax(score[:, 0], -1))
    parts = score[:, 1].exp()  # softmax-off-by-one: 1 more in the denominator
    torch.testing.assert_close(weight[:, 1], parts / (1 + parts.sum(-1, keepdim=True)))
    assert (weight[:, 2] == 0).all()


def test_huge_scores():
    """±1e4 on either side: finite weights and gradients, in float16 as well."""
    for dtype in (torch.float32, torch.float16):
        score = torch.tensor([[1e4, 0.0], [-1e4, -1e4]], dtype=dtype)
        score = score.expand(1, 2, 2, 2).clone().requires_grad_()
        sink = torch.tensor([1e4, -1e4], dtype=dtype, requires_grad=True)
        weight = sink_softmax(score, sink)
        expected = [[[0.5, 0], [0, 0]], [[1, 0], [1 / 3, 1 / 3]]]
        assert weight.dtype == dtype
        torch.testing.assert_close(weight[0], torch.tensor(expected, dtype=dtype))
        for grad in torch.autograd.grad(weight.sum(), (score, sink)):
            assert grad.isfinite().all()
    x = torch.randn(2, 5, 3, 8).transpose(1, 2)
    sink = torch.zeros(3)
    torch.testing.assert_close(
        attend_with_sink(x, x, x, sink),
        attend_with_sink(*[x.contiguous()] * 3, sink),
    )


def test_properties():
    """The future changes nothing, in pieces as in one go, inputs stay as they were."""
    sink = torch.tensor([0.5, -1.0], dtype=torch.float64)

    def run(draw):
        T = draw.size("T", 2, 8)
        window, first = draw.size("window", 1, 4), draw.size("first", 0, 2)
        x = draw.normal(1, 2, T, 4)

        def full(x):
            S = x.shape[2]
            mask = window_mask(S, S, window, first).expand(1, 2, S, S)
            return attend_with_sink(x, x, x, sink, mask)

        def step(piece, cache):
            cache = piece if cache is None else torch.cat([cache, piece], 2)
            T, S = piece.shape[2], cache.shape[2]
            mask = window_mask(T, S, window, first).expand(1, 2, T, S)
            return attend_with_sink(piece, cache, cache, sink, mask), cache

        causality(full, x, draw, axis=2)
        cached_equals_full(full, step, x, draw, axis=2)
        no_input_mutated(full, x)

    hold(run)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_hidden_keys_may_hold_anything(poison):
    """Neither outputs nor gradients, that of the sink included, notice the padding."""
    q, k, v = torch.randn(3, 1, 2, 5, 4, dtype=torch.float64).unbind(0)
    sink = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    mask = torch.ones(1, 2, 5, 5, dtype=torch.bool)
    mask[..., 3:] = mask[..., 4, :] = False
    short = attend_with_sink(q[:, :, :4], k[:, :, :3], v[:, :, :3], sink)
    q, k, v = q.clone(), k.clone(), v.clone()
    q[:, :, 4] = k[:, :, 3:] = v[:, :, 3:] = poison
    leaves = [q.requires_grad_(), k.requires_grad_(), v.requires_grad_(), sink]
    out = attend_with_sink(*leaves, mask)
    torch.testing.assert_close(out[:, :, :4], short)
    assert (out[:, :, 4] == 0).all()
    for grad in torch.autograd.grad(out.square().sum(), leaves):
        assert grad.isfinite().all()


def test_gradcheck():
    """Gradients agree with finite differences, those of sinks too."""
    q, k, v = (
        torch.randn(1, 2, n, 3, dtype=torch.float64, requires_grad=True)
        for n in (3, 4, 4)
    )
    sink = torch.tensor([0.3, -0.5], dtype=torch.float64, requires_grad=True)
    mask = torch.rand(1, 2, 3, 4) < 0.7
    assert torch.autograd.gradcheck(
        lambda *leaves: attend_with_sink(*leaves, mask), (q, k, v, sink)
    )


@given(
    S=st.integers(1, 9),
    T=st.integers(1, 9),
    window=st.integers(1, 10),
    first=st.integers(0, 4),
)
def test_window_mask(S, T, window, first):
    """Against the sentence: not later, and either among the first or close enough."""
    T = min(T, S)
    mask = window_mask(T, S, window, first)
    for t in range(T):
        own = S - T + t
        seen = [s for s in range(own + 1) if s < first or s > own - window]
        assert mask[t].nonzero().flatten().tolist() == seen
    cache = torch.arange(S * 1.0).view(1, 1, S, 1)
    kept = evict(cache, window, first).flatten().long()
    assert kept.tolist() == mask[-1].nonzero().flatten().tolist()


def test_find_payloads():
    """Answers are means over the window, by loops; a third of them have none."""
    torch.manual_seed(3)
    x, answer = find_payloads(3, 40, 8)
    empty = 0
    for b in range(3):
        asked = x[b, :, :KINDS].argmax(1)
        for t in range(40):
            found = [
                x[b, s, -2].item()
                for s in range(max(0, t - 7), t + 1)
                if s > 0 and x[b, s, KINDS + asked[t]] == 1
            ]
            empty += not found
            expected = sum(found) / len(found) if found else 0.0
            assert math.isclose(answer[b, t], expected, abs_tol=1e-6)
    assert 0.4 < empty / 120 < 0.8
    assert x.shape == (3, 40, 2 * KINDS + 2)
    assert x[:, 0, KINDS:].tolist() == [[0.0] * KINDS + [0.0, 1.0]] * 3
    assert x[:, 1:, -1].any().item() is False
    assert x[:, 1:, -2].abs().min() == x[:, 1:, KINDS:-2].sum(2).min() == 1
    _, answer = find_payloads(400, 16, 16)
    assert 0.3 < (answer[:, 15] == 0).float().mean() < 0.6


def test_finder_and_error():
    """The head is plain attention, or attention with its sink; errors are as said."""
    x, mask = find_payloads(2, 6, 6)[0], window_mask(6, 6, 6)
    for sink in (False, True):
        finder = Finder(sink=sink)
        q, k, v = (to(x)[:, None] for to in (finder.to_q, finder.to_k, finder.to_v))
        full = mask.expand(2, 1, 6, 6)
        if sink:
            expected = extra_key(q, k, v, finder.sink_1, full)
        else:
            expected = F.scaled_dot_product_attention(q, k, v, full)
        torch.testing.assert_close(finder(x, mask), expected[:, 0, :, 0])
        assert q.shape[-1] == 32
    with torch.no_grad():
        for to in (finder.to_q, finder.to_k, finder.to_v):
            to.weight.zero_()
            to.bias.zero_()
    torch.manual_seed(0)
    wrong = error(finder, 40, 0)
    torch.manual_seed(0)
    _, answer = find_payloads(64, 40, 16)
    assert math.isclose(wrong, answer[:, -16:].square().mean().sqrt(), rel_tol=1e-5)
    before = finder.to_v.weight.clone()
    assert train(finder, 1) is finder
    assert not finder.to_v.weight.equal(before)


def test_bad_input_is_named():
    """What came and what was expected."""
    x = torch.randn(1, 2, 3, 4)
    with pytest.raises(
        ValueError,
        match=r"^sink has shape \(3,\), query has 2 heads: one number for each is expected$",
    ):
        attend_with_sink(x, x, x, torch.zeros(3))
    with pytest.raises(ValueError, match=r"^sink has shape \(\), query has 2 heads"):
        attend_with_sink(x, x, x, torch.tensor(0.0))
    with pytest.raises(ValueError, match=r"^key has size 3, query has size 4"):
        attend_with_sink(x, x[..., :3], x, torch.zeros(2))
    with pytest.raises(
        ValueError, match=r"^there are 5 queries, 4 keys: queries are the last of them$"
    ):
        window_mask(5, 4, 2)
    for window, first in ((0, 1), (2, -1)):
        with pytest.raises(
            ValueError,
            match=f"^window is {window}, first is {first}: expected at least 1 and 0$",
        ):
            window_mask(4, 4, window, first)


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.transformer.sinks").output
    for line in (
        "one key fits: softmax gives 1.00, with a sink 0.98",
        "none fits   : softmax gives 1.00, with a sink 0.05",
        "kept: [0.0, 1.0, 5.0, 6.0, 7.0]",
        "2048 bytes a token; 16384 tokens: 32 MiB,",
        "4 first and a window of 128: 264 KiB",
        "keys far below: weights 0.0, gradient nan",
        "keys masked   : weights nan, gradient nan",
        "scores of -4: 1 after the shift 0.75, right 0.05",
        "scores of  6: 1 after the shift 0.75, right 1.00",
        "peak of softmax at T = 512: 9.38 MiB",
        "peak of sink at T = 512: 12.5",
    ):
        assert line in out
    numbers = [float(x) for x in re.findall(r"[01]\.\d+", out[out.index("seed 0") :])]
    for seed in range(3):
        everywhere, zero, short, lost, kept, learned = numbers[6 * seed : 6 * seed + 6]
        assert 0.55 < everywhere < 0.7
        assert 0.9 < zero < 1
        assert short < 0.02
        assert kept < 0.03
        assert learned < 0.1 < 0.15 < lost < 0.25
    small, large = (
        float(x.split()[5].rstrip("%")) for x in out.splitlines() if "differ by" in x
    )
    assert small < 0.1 < 10 < large
