"""Rotary embedding: complex numbers and transformers as oracles, both layouts, cache."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snippets.positions.rope import (
    frequencies,
    positions,
    rotary_attention,
    rotate_halves,
    rotate_pairs,
    rows_to_halves,
    to_halves,
)
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import batch_independence, cached_equals_full, causality
from tests.running import run_main


# --8<-- [start:complex]
def turn_complex(x, pos, base=10000.0):
    """Rotate neighbors as complex numbers in float64: multiply by exp(i·pos·θ)."""
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    turns = [base ** (-2 * j / x.shape[-1]) for j in range(x.shape[-1] // 2)]
    angle = pos.double()[:, None, :, None] * torch.tensor(turns, dtype=torch.float64)
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle))


def test_equals_complex_numbers():
    """Both layouts multiply by exp(i·pos·θ); they differ in where a pair stands."""
    x, pos = torch.randn(2, 3, 5, 8).double(), torch.randint(0, 4000, (2, 5))
    theta, turned = frequencies(8), turn_complex(x, pos)
    interleaved = turned.flatten(-2)
    split = torch.cat(turned.unbind(-1), -1)  # real parts, then imaginary parts
    torch.testing.assert_close(rotate_pairs(x, pos, theta), interleaved)
    torch.testing.assert_close(rotate_halves(to_halves(x), pos, theta), split)
    print("largest difference", (rotate_pairs(x, pos, theta) - interleaved).abs().max())


# --8<-- [end:complex]


# --8<-- [start:relative]
def test_scores_depend_on_the_offset_only():
    """The score at (m, n) is a function of m - n, and not a constant one."""
    q, k = torch.randn(2, 1, 1, 1, 16).double().unbind(0)
    for rotate in (rotate_pairs, rotate_halves):

        def score(m, n, rotate=rotate):
            q_turned = rotate(q, torch.tensor([[m]]), frequencies(16))
            k_turned = rotate(k, torch.tensor([[n]]), frequencies(16))
            return (q_turned * k_turned).sum().item()

        for offset in (-7, -1, 0, 1, 7, 400):
            first, *rest = (score(n + offset, n) for n in (7, 8, 90, 5000))
            assert max(abs(other - first) for other in rest) < 1e-9
        values = [score(50 + offset, 50) for offset in range(-6, 7)]
        gaps = [abs(a - b) for i, a in enumerate(values) for b in values[:i]]
        assert min(gaps) > 1e-6
        print(f"{rotate.__name__}: 13 offsets, closest scores {min(gaps):.4f} apart")


# --8<-- [end:relative]


def test_reordered_projections_give_the_same_scores():
    """Rows of W_Q and W_K in half-split order: the scores stay, head by head."""
    to_q, to_k = (torch.nn.Linear(24, 4 * 6).double() for _ in range(2))
    x, pos, theta = torch.randn(2, 5, 24).double(), torch.arange(5), frequencies(6)
    results = []
    for rotate in (rotate_pairs, rotate_halves):
        q, k = (to(x).unflatten(2, (4, 6)).transpose(1, 2) for to in (to_q, to_k))
        turned = [rotate(one, pos.expand(2, 5), theta) for one in (q, k)]
        results.append(turned[0] @ turned[1].mT)
        for to in (to_q, to_k):  # convert for the second round
            for part in to.parameters():
                part.data = rows_to_halves(part.data, 4)
    torch.testing.assert_close(*results)
    print("scores", tuple(results[0].shape), "agree after the conversion")


def test_pieces_equal_one_go():
    """However a left-padded batch is cut: with a cache the output is the same."""
    keep = torch.arange(6) >= torch.tensor([[0], [2]])  # row 1 begins with padding
    theta = frequencies(8)

    def run(draw):
        q, k, v = draw.normal(3, 2, 2, 6, 8)

        def step(pos, cache):
            start, kept = cache or (0, None)
            new = slice(start, start + pos.shape[1])
            three = (one[:, :, new] for one in (q, k, v))
            out, kept = rotary_attention(*three, pos, theta, kept)
            return out.transpose(1, 2), (new.stop, kept)

        def whole(pos):
            return rotary_attention(q, k, v, pos, theta)[0].transpose(1, 2)

        cached_equals_full(whole, step, positions(keep), draw)

    hold(run)
    print("20 ways to cut 6 positions: the same output")


def llama_tables(pos, base, size, dtype):
    """Return cos and sin of transformers' Llama."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    parameters = {"rope_type": "default", "rope_theta": base}
    config = LlamaConfig(head_dim=size, rope_parameters=parameters)
    return LlamaRotaryEmbedding(config)(torch.empty(0, dtype=dtype), pos)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("base", [100.0, 10000.0, 500000.0])
def test_equals_llama(dtype, base):
    """Half-split, forward and gradient, within the error of transformers' own code."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    x = torch.randn(2, 3, 7, 16, dtype=dtype, requires_grad=True)
    pos, upstream = torch.randint(0, 300, (2, 7)), torch.randn(2, 3, 7, 16)
    cos, sin = llama_tables(pos, base, 16, dtype)
    wide = x.detach().double().requires_grad_()
    # in float64 by complex numbers, and to the half-split layout and back by hand
    back = wide.unflatten(-1, (2, 8)).mT.flatten(-2)
    exact = torch.cat(turn_complex_grad(back, pos, base).unbind(-1), -1)
    outs = (
        rotate_halves(x, pos, frequencies(16, base)),
        apply_rotary_pos_emb(x, x, cos, sin)[0],
        exact,
    )
    assert outs[0].dtype == dtype
    grads = [
        torch.autograd.grad(out, leaf, upstream.to(out.dtype))[0]
        for out, leaf in zip(outs, (x, x, wide), strict=True)
    ]
    for ours, theirs, true in (outs, grads):
        assert largest_error(ours, true) <= error_budget(theirs, true)


def turn_complex_grad(x, pos, base):
    """Rotate neighbors by rotation matrices in float64; returns (…, J, 2)."""
    theta = base ** (-torch.arange(x.shape[-1] // 2).double() * 2 / x.shape[-1])
    angle = pos.double()[:, None, :, None] * theta
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.stack((cos, -sin, sin, cos), -1).unflatten(-1, (2, 2))
    return (matrix @ x.unflatten(-1, (-1, 2)).unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_equals_cohere_and_gptj(dtype):
    """Interleaved: two models of transformers that pair neighbors."""
    from transformers.models.cohere.modeling_cohere import apply_rotary_pos_emb
    from transformers.models.gptj.modeling_gptj import (
        apply_rotary_pos_emb as apply_gptj,
    )

    x, pos = torch.randn(2, 3, 7, 16, dtype=dtype), torch.randint(0, 300, (2, 7))
    theta = frequencies(16)
    angle = pos.unsqueeze(-1) * theta.float()
    cos, sin = (
        angle.repeat_interleave(2, -1).cos(),
        angle.repeat_interleave(2, -1).sin(),
    )
    exact = turn_complex(x, pos).flatten(-2)
    ours = rotate_pairs(x, pos, theta)
    cohere, _ = apply_rotary_pos_emb(x, x, cos.to(dtype), sin.to(dtype))
    gptj = apply_gptj(x.transpose(1, 2), angle.sin().to(dtype), angle.cos().to(dtype))
    for theirs in (cohere, gptj.transpose(1, 2)):
        assert largest_error(ours, exact) <= error_budget(theirs, exact)
    assert ours.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_far_positions_keep_their_precision(dtype):
    """At a million positions the result is the exact one, rounded once or twice."""
    x, pos = torch.randn(1, 1, 64, 32, dtype=dtype), torch.randint(1, 2**20, (1, 64))
    exact = turn_complex(x, pos).flatten(-2)
    ulp = torch.finfo(dtype).eps * exact.abs().max().item()
    ours = rotate_pairs(x, pos, frequencies(32)).double()
    assert largest_error(ours, exact) <= 2 * ulp
    if dtype != torch.float32:  # nothing but the result is rounded to it
        off = (ours - exact).abs() - torch.finfo(dtype).eps / 2 * exact.abs()
        assert (off <= 1e-5).all()


@given(
    seed=st.integers(0, 999),
    B=st.integers(1, 2),
    H=st.integers(1, 3),
    T=st.integers(0, 5),
    J=st.integers(1, 4),
    base=st.sampled_from([2.0, 10000.0]),
)
def test_equals_complex_numbers_on_any_shape(seed, B, H, T, J, base):
    """No token, one head, one pair, negative positions; lengths stay."""
    torch.manual_seed(seed)
    x = torch.randn(B, T, H, 2 * J).double().transpose(1, 2)
    pos, theta = torch.randint(-9, 9000, (B, T)), frequencies(2 * J, base)
    exact = turn_complex(x, pos, base)
    torch.testing.assert_close(rotate_pairs(x, pos, theta), exact.flatten(-2))
    halves = rotate_halves(to_halves(x), pos.int(), theta)
    torch.testing.assert_close(halves, to_halves(exact.flatten(-2)))
    torch.testing.assert_close(halves.norm(dim=-1), x.norm(dim=-1))


def test_frequencies():
    """From 1 down to base^(-(K-2)/K), in float64."""
    expected = torch.tensor([1, 0.1, 0.01, 0.001]).double()
    torch.testing.assert_close(frequencies(8), expected, rtol=1e-7, atol=0)
    torch.testing.assert_close(frequencies(4, 100.0), torch.tensor([1, 0.1]).double())
    assert frequencies(2).equal(torch.ones(1, dtype=torch.float64))
    assert frequencies(2, 1.5).equal(torch.ones(1, dtype=torch.float64))
    assert frequencies(8).dtype == torch.float64


def test_to_halves_moves_channels():
    """Even channels first, then the odd ones."""
    assert to_halves(torch.arange(6)).tolist() == [0, 2, 4, 1, 3, 5]
    rows = rows_to_halves(torch.arange(8), 2)
    assert rows.tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert rows_to_halves(torch.arange(2), 1).tolist() == [0, 1]


def test_positions_count_tokens():
    """Left padding, right padding, none."""
    keep = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]]).bool()
    expected = [[-1, -1, 0, 1], [0, 1, -1, -1], [0, 1, 2, 3]]
    assert positions(keep).tolist() == expected
    assert positions(keep).dtype == torch.int64


def whole(q, k, v, pos, theta=None):
    """Attend by our function, without a cache."""
    theta = frequencies(q.shape[-1]) if theta is None else theta
    return rotary_attention(q, k, v, pos, theta)[0]


def test_attention_equals_pytorch():
    """Outputs and gradients of SDPA on vectors rotated by complex numbers."""
    q, k, v = torch.randn(3, 2, 3, 5, 8).double().requires_grad_()
    pos = torch.tensor([[0, 1, 2, 3, 4], [-1, -1, 7, 8, 9]])

    def halves(x):
        back = x.unflatten(-1, (2, 4)).mT.flatten(-2)
        return turn_complex_grad(back, pos, 10000.0).mT.flatten(-2)

    mask = (pos[:, None] >= 0) & (pos[:, None] <= pos[:, :, None])
    theirs = torch.nn.functional.scaled_dot_product_attention(
        halves(q), halves(k), v, mask[:, None]
    )
    ours = whole(q, k, v, pos)
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn_like(ours)
    for one, other in zip(
        torch.autograd.grad(ours, (q, k, v), upstream),
        torch.autograd.grad(theirs, (q, k, v), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    assert (ours[1, :, :2] == 0).all()


def test_attention_properties():
    """The future and other samples change nothing; one shift of all changes nothing."""

    def run(draw):
        B, T = draw.size("B", 1, 3), draw.size("T", 1, 6)
        x, pos = draw.normal(B, T, 3, 2, 4), torch.arange(T).expand(B, T)

        def run_on(x, shift=0):
            q, k, v = x.movedim(1, 3).unbind(1)
            return whole(q, k, v, pos[: len(x)] + shift).transpose(1, 2)

        causality(run_on, x, draw)
        batch_independence(run_on, x, draw)
        torch.testing.assert_close(run_on(x), run_on(x, draw.size("shift", 1, 900)))

    hold(run)


def test_values_are_not_rotated():
    """Equal values come back as they are, wherever they stand."""
    q, k = torch.randn(2, 1, 2, 5, 8).double().unbind(0)
    v = torch.randn(8).double().expand(1, 2, 5, 8)
    torch.testing.assert_close(whole(q, k, v, torch.arange(5)[None] + 30), v)


def test_padding_may_hold_nan():
    """Left padding with NaN or Inf equals no padding; gradients stay finite."""
    q, k, v = torch.randn(3, 1, 2, 6, 8).double()
    short = whole(*(one[:, :, 2:] for one in (q, k, v)), torch.arange(4)[None])
    pos = positions(torch.arange(6)[None] >= 2)
    for bad in (math.nan, math.inf, -math.inf):
        leaves = []
        for one in (q, k, v):
            one = one.clone()
            one[:, :, :2] = bad
            leaves.append(one.requires_grad_())
        out = whole(*leaves, pos)
        torch.testing.assert_close(out[:, :, 2:], short)
        assert (out[:, :, :2] == 0).all()
        for grad in torch.autograd.grad(out.sum(), leaves):
            assert grad.isfinite().all()


def test_cache_holds_rotated_keys():
    """Keys are rotated once, at their own positions, before they are kept."""
    q, k, v = torch.randn(3, 1, 2, 3, 8)
    pos, theta = torch.tensor([[4, 5, 6]]), frequencies(8)
    _, (keys, values, kept) = rotary_attention(q, k, v, pos, theta)
    assert keys.equal(rotate_halves(k, pos, theta))
    assert values is v
    assert kept is pos
    _, (more, values, kept) = rotary_attention(
        q, k, v, pos + 3, theta, (keys, values, kept)
    )
    assert more[:, :, :3].equal(keys)
    assert more[:, :, 3:].equal(rotate_halves(k, pos + 3, theta))
    assert values.equal(torch.cat((v, v), 2))
    assert kept.tolist() == [[4, 5, 6, 7, 8, 9]]


def test_huge_vectors_stay_finite():
    """Scores of ±1e4 and more do not overflow into NaN."""
    q, k, v = torch.randn(3, 1, 2, 4, 8)
    assert whole(q * 1e4, k * 1e4, v, torch.arange(4)[None]).isfinite().all()


def test_gradcheck():
    """Gradients agree with finite differences, in both layouts."""
    x = torch.randn(1, 2, 3, 4).double().requires_grad_()
    pos, theta = torch.tensor([[0, 3, 50]]), frequencies(4)
    for rotate in (rotate_pairs, rotate_halves):
        assert torch.autograd.gradcheck(lambda x, f=rotate: f(x, pos, theta), (x,))


def test_bad_input_is_named():
    """What came and what was expected."""
    for size in (5, 0, -2):
        wrong = f"^size is {size}, expected a positive even number$"
        with pytest.raises(ValueError, match=wrong):
            frequencies(size)
    with pytest.raises(ValueError, match=r"^base is 1, expected a number above 1$"):
        frequencies(8, 1)
    x, pos, theta = torch.randn(2, 3, 5, 8), torch.zeros(2, 5).long(), frequencies(8)
    for rotate in (rotate_pairs, rotate_halves):
        for args, wrong in (
            (
                (x[0], pos, theta),
                r"x has shape \(3, 5, 8\), expected 4 axes, the last of even size",
            ),
            (
                (x[..., :7], pos, theta),
                r"x has shape \(2, 3, 5, 7\), expected 4 axes, the last of even size",
            ),
            (
                (x.unsqueeze(-2), pos, theta),
                r"x has shape \(2, 3, 5, 1, 8\), expected 4 axes, the last of even size",
            ),
            ((x, pos[0], theta), r"pos has shape \(5,\), expected \(2, 5\)"),
            ((x, pos[:, :1], theta), r"pos has shape \(2, 1\), expected \(2, 5\)"),
            (
                (x, pos.bfloat16(), theta),
                r"pos has torch\.bfloat16, expected torch\.int32 or torch\.int64",
            ),
            ((x, pos, frequencies(16)), r"theta has shape \(8,\), expected \(4,\)"),
        ):
            with pytest.raises(ValueError, match=f"^{wrong}$"):
                rotate(*args)
    for rows, heads in ((8, 3), (6, 2), (8, 0)):
        wrong = (
            f"^weight has {rows} rows, "
            f"expected an even number for each of {heads} heads$"
        )
        with pytest.raises(ValueError, match=wrong):
            rows_to_halves(torch.zeros(rows, 5), heads)
    with pytest.raises(
        ValueError, match=r"^keep has torch\.int64, expected torch\.bool$"
    ):
        positions(pos)


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.positions.rope").output
    for m, n in ((5, 2), (1005, 1002), (1000005, 1000002)):
        assert f"m = {m:7}, n = {n:7}, m - n =  3:  -8.867" in out
    assert "m - n =  2: -11.249" in out
    assert "m - n = -3:  -5.986" in out
    assert "T = 1024: rotating q and k 0.79 MFLOPs" in out
    assert "products 0; attention 536.9 MFLOPs" in out
    assert "base  10000: at distance 4095 -0.07" in out
    assert "turns once in 54410 positions" in out
    assert "base 500000: at distance 4095 0.37" in out
    assert "turns once in 2559196 positions" in out
    assert "rotary: offset 0 True, offset 3 True, 3 unlike 1 True" in out
    assert "identity: offset 0 True, offset 3 True, 3 unlike 1 False" in out
    assert "position  0: the layouts differ by 0.00" in out
    assert "position  1: the layouts differ by 2.63" in out
    assert "float32: 4096 different positions of 4096, cos off by 0.000" in out
    assert "float16: 3073 different positions of 4096, cos off by 1.7" in out
    assert "bfloat16: 769 different positions of 4096, cos off by 1.9" in out
    assert "prompt 0 to 4, new token at 5: off by 0.00" in out
    assert "prompt 0 to 4, new token at 0: off by 0.87" in out
    assert "prompt 7 to 11, new token at 12: off by 0.00" in out
    assert "prompt 7 to 11, new token at 5: off by 0.79" in out
