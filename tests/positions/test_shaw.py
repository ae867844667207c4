"""Shaw's relative positions: loops, PyTorch and Wav2Vec2-BERT as oracles, clipping."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from snippets.positions.shaw import distance_rows, materialized, relative_attend
from snippets.properties.cost import count_flops, largest_bytes
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import (
    batch_independence,
    cached_equals_full,
    causality,
    gradient_flow,
    no_input_mutated,
    padding_invariance,
)
from tests.running import run_main


# --8<-- [start:inputs]
def draw_inputs(B=2, H=2, T=5, S=5, K=4, V=3, clip=2, dtype=torch.float64):
    """Return queries, keys, values and both tables."""
    shapes = (B, H, T, K), (B, H, S, K), (B, H, S, V), (2 * clip + 1, K)
    made = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    made.append(torch.randn(2 * clip + 1, V, dtype=torch.float64))
    return [one.to(dtype) for one in made]


# --8<-- [end:inputs]


# --8<-- [start:equals-loops]
def naive(q, k, v, ak, av, clip, start):
    """Write equations 3 to 5 with loops: one query of one head at a time."""
    out = torch.zeros(*q.shape[:3], v.shape[3], dtype=torch.float64)
    for b, h, t in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).tolist():
        rows = [max(-clip, min(clip, s - t - start)) + clip for s in range(k.shape[2])]
        keys = torch.stack([k[b, h, s] + ak[row] for s, row in enumerate(rows)])
        values = torch.stack([v[b, h, s] + av[row] for s, row in enumerate(rows)])
        score = keys @ q[b, h, t] / math.sqrt(q.shape[3])
        out[b, h, t] = score.softmax(0) @ values
    return out


def test_equals_loops():
    """One query, equal lengths, more queries than keys; clips 0 to longer than all."""
    for T, S, clip in ((5, 5, 2), (1, 6, 3), (2, 7, 0), (4, 3, 1), (3, 3, 9)):
        q, k, v, ak, av = draw_inputs(T=T, S=S, clip=clip)
        ours = relative_attend(q, k, v, ak, av)
        torch.testing.assert_close(ours, naive(q, k, v, ak, av, clip, S - T))
        print(f"T = {T}, S = {S}, clip = {clip}: equal")


# --8<-- [end:equals-loops]


# --8<-- [start:cache]
def test_cached_steps_equal_the_full_pass():
    """The newest query, alone with all keys, gives the last row of the full pass."""
    q, k, v, ak, av = draw_inputs(T=6, S=6)
    causal = torch.ones(2, 2, 6, 6, dtype=torch.bool).tril()
    full = relative_attend(q, k, v, ak, av, causal)
    for n in range(1, 7):
        step = relative_attend(q[:, :, n - 1 : n], k[:, :, :n], v[:, :, :n], ak, av)
        torch.testing.assert_close(step, full[:, :, n - 1 : n])
        # A preallocated cache: empty slots are masked, and start says where we are.
        static = causal[:, :, n - 1 : n]
        step = relative_attend(q[:, :, n - 1 : n], k, v, ak, av, static, start=n - 1)
        torch.testing.assert_close(step, full[:, :, n - 1 : n])
    print("6 cached steps equal the full pass, growing and preallocated cache")


# --8<-- [end:cache]


# --8<-- [start:far-keys]
def test_far_keys_are_a_set():
    """Beyond the clip the order is lost: permuting far keys changes nothing."""
    q, k, v, ak, av = draw_inputs(T=1, S=9, clip=3)
    before = relative_attend(q, k, v, ak, av)
    far = torch.tensor([4, 0, 5, 2, 1, 3, 6, 7, 8])  # distances 3 to 8 among each other
    torch.testing.assert_close(
        relative_attend(q, k[:, :, far], v[:, :, far], ak, av), before
    )
    near = torch.tensor([0, 1, 2, 3, 4, 6, 5, 7, 8])  # distances 2 and 3 swap
    gap = relative_attend(q, k[:, :, near], v[:, :, near], ak, av) - before
    assert gap.abs().max() > 0.01
    print(f"far keys permuted: equal; keys 2 and 3 back swapped: {gap.abs().max():.2f}")


# --8<-- [end:far-keys]


@given(
    seed=st.integers(0, 99),
    T=st.integers(1, 4),
    S=st.integers(1, 4),
    clip=st.integers(0, 4),
    start=st.integers(0, 3),
)
def test_equals_loops_anywhere(seed, T, S, clip, start):
    """Any sizes and any position of the first query."""
    torch.manual_seed(seed)
    q, k, v, ak, av = draw_inputs(B=1, T=T, S=S, clip=clip)
    ours = relative_attend(q, k, v, ak, av, start=start)
    torch.testing.assert_close(ours, naive(q, k, v, ak, av, clip, start))


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_equal_the_plain_form(masked):
    """Outputs and gradients equal PyTorch's kernel given bias and values by hand."""
    inputs = draw_inputs(T=4, S=6)
    mask = torch.rand(2, 2, 4, 6) < 0.7 if masked else torch.ones(2, 2, 4, 6).bool()
    mask[..., 0] = True
    rows = (torch.arange(6) - torch.arange(2, 6)[:, None]).clamp(-2, 2) + 2
    results = []
    for which in ("ours", "theirs"):
        q, k, v, ak, av = (one.clone().requires_grad_() for one in inputs)
        if which == "ours":
            out = relative_attend(q, k, v, ak, av, mask if masked else None)
        else:
            bias = torch.einsum("bhtk,tsk->bhts", q, ak[rows]) / math.sqrt(4)
            bias = bias.masked_fill(~mask, -math.inf)
            eye = torch.eye(6, dtype=torch.float64).expand(2, 2, 6, 6)
            weight = F.scaled_dot_product_attention(q, k, eye, bias)
            out = weight @ v + torch.einsum("bhts,tsv->bhtv", weight, av[rows])
        grads = torch.autograd.grad(out.square().sum(), (q, k, v, ak, av))
        results.append([out, *grads])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_materialized_is_the_same():
    """The form that the page compares the cost with."""
    inputs = draw_inputs(T=4, S=6)
    torch.testing.assert_close(materialized(*inputs), relative_attend(*inputs))


def test_equals_wav2vec2_bert():
    """W2v-BERT 2.0 uses relative keys without relative values."""
    from transformers import Wav2Vec2BertConfig
    from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import (
        Wav2Vec2BertSelfAttention,
    )

    config = Wav2Vec2BertConfig(
        hidden_size=8,
        num_attention_heads=2,
        left_max_position_embeddings=2,
        right_max_position_embeddings=2,
        attention_dropout=0.0,
        attn_implementation="eager",
    )
    theirs = Wav2Vec2BertSelfAttention(config).eval()
    x = torch.randn(2, 6, 8)
    q, k, v = (
        to(x).unflatten(2, (2, 4)).transpose(1, 2)
        for to in (theirs.linear_q, theirs.linear_k, theirs.linear_v)
    )
    ak = theirs.distance_embedding.weight
    ours = relative_attend(q, k, v, ak, torch.zeros(5, 4))
    ours = theirs.linear_out(ours.transpose(1, 2).flatten(2))
    torch.testing.assert_close(ours, theirs(x)[0])


def test_zero_tables_are_plain_attention():
    """Without relative keys and values this is PyTorch's attention."""
    q, k, v, ak, av = draw_inputs()
    ours = relative_attend(q, k, v, ak * 0, av * 0)
    torch.testing.assert_close(ours, F.scaled_dot_product_attention(q, k, v))


def test_distance_rows():
    """Rows as in the docstring; start moves the queries."""
    assert distance_rows(2, 4, 1).tolist() == [[0, 0, 1, 2], [0, 0, 0, 1]]
    assert distance_rows(2, 4, 1, start=0).tolist() == [[1, 2, 2, 2], [0, 1, 2, 2]]
    assert distance_rows(1, 3, 0).tolist() == [[0, 0, 0]]
    assert distance_rows(3, 1, 5).tolist() == [[7], [6], [5]]


def test_only_distances_matter():
    """Moving queries and keys together changes nothing."""
    q, k, v, ak, av = draw_inputs(T=3, S=3)
    mask = torch.ones(2, 2, 3, 8, dtype=torch.bool)
    mask[..., :5] = False
    long_k, long_v = (F.pad(one, (0, 0, 5, 0)) for one in (k, v))
    torch.testing.assert_close(
        relative_attend(q, long_k, long_v, ak, av, mask),
        relative_attend(q, k, v, ak, av),
    )


def test_kit_properties():
    """Causality, padding, caches, samples, gradients, inputs."""
    ak, av = torch.randn(2, 5, 4, dtype=torch.float64)

    def attend(x, keep=None, keys=None, causal=False):
        y = x if keys is None else keys
        B, T, S = len(x), x.shape[1], y.shape[1]
        mask = torch.ones(B, 1, T, S, dtype=torch.bool)
        mask = mask.tril(S - T) if causal else mask
        mask = mask if keep is None else mask & keep[:, None, None]
        return relative_attend(*(z[:, None] for z in (x, y, y)), ak, av, mask)[:, 0]

    def step(piece, cache):
        cache = piece if cache is None else torch.cat([cache, piece], 1)
        return attend(piece, keys=cache, causal=True), cache

    def run(draw):
        x = draw.normal(draw.size("B", 1, 3), draw.size("T", 1, 6), 4)
        causality(lambda x: attend(x, causal=True), x, draw)
        padding_invariance(attend, x, draw)
        batch_independence(attend, x, draw)
        no_input_mutated(attend, x)
        cached_equals_full(lambda x: attend(x, causal=True), step, x, draw)

    hold(run)
    gradient_flow(relative_attend, *draw_inputs())


def test_fully_masked_rows_are_zero():
    """No key, no content, no position: zeros, and gradients stay finite."""
    inputs = [one.requires_grad_() for one in draw_inputs()]
    mask = torch.ones(2, 2, 5, 5, dtype=torch.bool)
    mask[0, 1, 2] = False
    out = relative_attend(*inputs, mask)
    assert out[0, 1, 2].eq(0).all()
    assert out[0, 1, 1].ne(0).all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), inputs))


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_nan_behind_the_mask_stays_there(poison):
    """Masked keys and values and blind queries reach neither output nor gradient."""
    q, k, v, ak, av = draw_inputs()
    mask = torch.ones(2, 2, 5, 5, dtype=torch.bool)
    mask[..., 3] = False
    mask[:, :, 4] = False
    clean = relative_attend(q, k, v, ak, av, mask)
    k[:, :, 3], v[:, :, 3], q[:, :, 4] = poison, poison, poison
    inputs = [one.requires_grad_() for one in (q, k, v, ak, av)]
    out = relative_attend(*inputs, mask)
    torch.testing.assert_close(out, clean)
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_error_budget(dtype):
    """No worse than the plain form in the same dtype, on many keys in one row."""
    inputs = draw_inputs(T=6, S=300, K=16, V=8, clip=3, dtype=dtype)
    exact = materialized(*(one.double() for one in inputs))
    peer = materialized(*inputs)
    ours = relative_attend(*inputs)
    assert ours.dtype == dtype
    assert largest_error(ours, exact) <= error_budget(peer, exact)


def test_huge_scores():
    """Scores of 1e4 pick one key; its value and its distance come out."""
    q, k, v, ak, av = draw_inputs(T=1, S=4, dtype=torch.float32)
    q, k = torch.full_like(q, 100.0), torch.full_like(k, -100.0)
    k[:, :, 1] = 100.0
    out = relative_attend(q, k, v, ak, av)
    torch.testing.assert_close(out[:, :, 0], v[:, :, 1] + av[0])


def test_scaled_before_the_product():
    """In float16 products of 32 · 32 · 128 overflow unless the query is scaled first."""
    q = torch.full((1, 1, 1, 128), 32.0, dtype=torch.float16)
    zero = torch.zeros(3, 128, dtype=torch.float16)
    for k, ak in ((q, zero), (q * 0, torch.full_like(zero, 32.0))):
        out = relative_attend(q, k, torch.ones_like(q), ak, zero)
        assert out.eq(1).all()


def test_gradcheck():
    """Gradients agree with finite differences."""
    inputs = [
        o.requires_grad_() for o in draw_inputs(B=1, H=1, T=2, S=3, K=2, V=2, clip=1)
    ]
    assert torch.autograd.gradcheck(relative_attend, inputs)


def test_non_contiguous_input():
    """Heads cut from a last axis are read as they stand."""
    q, k, v, ak, av = draw_inputs(K=4, V=4)
    theirs = relative_attend(q, k, v, ak, av)
    q, k, v = (o.transpose(1, 2).contiguous().transpose(1, 2) for o in (q, k, v))
    ours = relative_attend(q, k, v, ak.T.contiguous().T, av)
    torch.testing.assert_close(ours, theirs)


def test_no_pair_has_a_vector():
    """No (T, S, K) tensor is made, and FLOPs grow by 2 · B · H · T · W · (K + V)."""
    q, k, v, ak, av = draw_inputs(B=1, H=2, T=64, S=64, K=32, V=32, clip=2)
    assert largest_bytes(lambda: relative_attend(q, k, v, ak, av)) <= 8 * 2 * 64 * 64
    flops = count_flops(lambda: relative_attend(q, k, v, ak, av))
    assert flops == 2 * 2 * 64 * (64 + 5) * (32 + 32)


def test_bad_input_is_named():
    """What came and what was expected."""
    q, k, v, ak, av = draw_inputs()
    for name, tables in (
        ("ak", (ak[:4], av)),
        ("ak", (ak[:, :3], av)),
        ("ak", (ak[0], av)),
    ):
        with pytest.raises(
            ValueError, match=rf"^{name} has shape \(.*\), expected \(odd, 4\)$"
        ):
            relative_attend(q, k, v, *tables)
    for bad in (av[:4], av[:, :2]):
        with pytest.raises(
            ValueError, match=r"^av has shape \(.*\), expected \(odd, 3\)$"
        ):
            relative_attend(q, k, v, ak, bad)
    with pytest.raises(ValueError, match=r"^av has 3 rows, ak has 5: they must agree$"):
        relative_attend(q, k, v, ak, av[:3])
    with pytest.raises(ValueError, match=r"^clip is -1, expected at least 0$"):
        distance_rows(2, 2, -1)
    with pytest.raises(ValueError, match=r"^start is -1, expected at least 0$"):
        relative_attend(q, k, v, ak, av, start=-1)
    with pytest.raises(ValueError, match="key has size 3, query has size 4"):
        relative_attend(q, k[..., :3], v, ak, av)
    with pytest.raises(ValueError, match=r"mask has shape \(5, 5\), expected"):
        relative_attend(q, k, v, ak, av, torch.ones(5, 5, dtype=torch.bool))


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.positions.shaw").output
    assert "[[0, 0, 0, 1, 2]]" in out
    assert "(1, 2, 5, 8)" in out
    assert "relative_attend: 285.7 MFLOPs,   14.8 MiB" in out
    assert "materialized   : 536.9 MFLOPs,  142.0 MiB" in out
    assert "plain attention: 268.4 MFLOPs" in out
    assert "as if position 0: off by 2.72" in out
    assert "at the end: off by 0.00" in out
    assert "parameters: 0" in out
    assert "saved: []" in out
