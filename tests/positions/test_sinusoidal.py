"""Sinusoidal positions: float64 loops and transformers as oracles, shift, distance."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snippets.positions.sinusoidal import (
    add_positions,
    concatenated,
    frequencies,
    shift,
    sinusoidal,
)
from snippets.properties.cost import count_flops
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import batch_independence, causality, no_input_mutated
from tests.running import run_main


# --8<-- [start:equals-loops]
def naive(positions, size):
    """Write the formula of the paper with loops and the math module."""
    rows = []
    for p in positions:
        row = []
        for channel in range(size):
            angle = p / 10000 ** (channel // 2 * 2 / size)
            row.append(math.cos(angle) if channel % 2 else math.sin(angle))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def test_equals_loops():
    """Even and odd sizes, far and fractional and negative positions."""
    for size in (1, 2, 7, 64):
        positions = [0, 1, 2, 999, 0.5, -3, 100_000]
        ours = sinusoidal(torch.tensor(positions, dtype=torch.float64), size)
        error = (ours - naive(positions, size)).abs().max().item()
        assert error < 1e-10  # an angle of 1e5 is known to 1e5 · 2^-53 = 1e-11
        print(f"D = {size:2}: largest difference {error:.0e}")


# --8<-- [end:equals-loops]


# --8<-- [start:shift-rotates]
def test_shift_is_a_rotation():
    """One matrix M moves every position by 7; it is orthogonal, its powers add up."""
    code, later = sinusoidal(torch.arange(50), 32), sinusoidal(torch.arange(7, 57), 32)
    moved = shift(code, 7)
    torch.testing.assert_close(moved, later)
    M = shift(torch.eye(32, dtype=torch.float64), 7)  # rows of the identity, moved
    torch.testing.assert_close(code @ M, later)
    torch.testing.assert_close(M @ M.T, torch.eye(32, dtype=torch.float64))
    torch.testing.assert_close(M @ M, shift(torch.eye(32, dtype=torch.float64), 14))
    off_blocks = M.masked_fill(torch.block_diag(*[torch.ones(2, 2)] * 16) > 0, 0)
    assert off_blocks.count_nonzero() == 0
    print(
        f"shift by 7 off by {(moved - later).abs().max():.0e}; M = 16 blocks of 2 × 2"
    )


# --8<-- [end:shift-rotates]


# --8<-- [start:distance-only]
def test_dot_product_knows_the_distance_only():
    """code(p) · code(q) = Σ cos(ω_i (p - q)), wherever p and q stand."""
    for p, q in ((3, 8), (900, 905), (905, 900), (-2, -7)):
        a, b = sinusoidal(torch.tensor([p, q]), 64)
        expected = torch.cos(frequencies(64) * (p - q)).sum()
        torch.testing.assert_close(a @ b, expected)
        print(f"code({p}) · code({q}) = {a @ b:.4f}")


# --8<-- [end:distance-only]


@given(
    seed=st.integers(0, 999),
    T=st.integers(0, 6),
    size=st.integers(1, 17),
    far=st.floats(-9e3, 9e3),
)
def test_equals_loops_on_any_shape(seed, T, size, far):
    """No token, one token, any size."""
    torch.manual_seed(seed)
    position = torch.randn(T, dtype=torch.float64) * 10 + far
    expected = naive(position.tolist(), size).reshape(T, size)
    torch.testing.assert_close(sinusoidal(position, size), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("size", [6, 7, 32])
def test_equals_marian(size):
    """Marian keeps the same numbers with all sines first."""
    from transformers.models.marian.modeling_marian import (
        MarianSinusoidalPositionalEmbedding,
    )

    theirs = MarianSinusoidalPositionalEmbedding(40, size).create_weight()
    ours = concatenated(sinusoidal(torch.arange(40), size))
    assert largest_error(theirs, ours) <= error_budget(ours.float(), ours)


def test_whisper_spaces_the_frequencies_differently():
    """Whisper divides by D/2 - 1: the same first two channels, not the others."""
    from transformers.models.whisper.modeling_whisper import sinusoids

    theirs = sinusoids(50, 32).double()
    ours = concatenated(sinusoidal(torch.arange(50), 32))
    torch.testing.assert_close(theirs[:, [0, 16]], ours[:, [0, 16]], rtol=0, atol=1e-5)
    assert (theirs - ours).abs().max() > 0.5
    omega = 10000 ** (-torch.arange(16, dtype=torch.float64) / 15)
    angle = torch.arange(50).double()[:, None] * omega
    expected = torch.cat([angle.sin(), angle.cos()], 1)
    torch.testing.assert_close(theirs, expected, rtol=0, atol=1e-5)


def test_frequencies_are_geometric():
    """From 1 in equal ratios towards 1 / base; half as many as channels, rounded up."""
    omega = frequencies(8, base=16.0)
    assert omega.dtype == torch.float64
    torch.testing.assert_close(omega, torch.tensor([1, 0.5, 0.25, 0.125]).double())
    assert frequencies(5).shape == (3,)
    assert frequencies(1).tolist() == [1.0]


def test_base_reaches_the_code():
    """Both functions pass the base on."""
    code = sinusoidal(torch.tensor([2]), 4, base=4.0)
    expected = [math.sin(2), math.cos(2), math.sin(1), math.cos(1)]
    torch.testing.assert_close(code[0], torch.tensor(expected).double())
    torch.testing.assert_close(
        shift(code, 3, base=4.0), sinusoidal(torch.tensor([5]), 4, base=4.0)
    )


def test_position_zero_and_units():
    """Position 0 is 0, 1, 0, 1; each pair lies on the unit circle."""
    assert sinusoidal(torch.tensor([0]), 6)[0].tolist() == [0, 1, 0, 1, 0, 1]
    code = sinusoidal(torch.arange(100), 6)
    torch.testing.assert_close(
        code.unflatten(1, (3, 2)).square().sum(2), torch.ones(100, 3).double()
    )


def test_odd_shift_cannot_be_linear():
    """Without its cosine the last sine is no linear function of the code."""
    code = sinusoidal(torch.arange(200), 3)
    later = sinusoidal(torch.arange(1, 201), 3)
    matrix = torch.linalg.lstsq(code[:, 2:], later[:, 2:]).solution
    assert (code[:, 2:] @ matrix - later[:, 2:]).abs().max() > 1e-3


def test_shift_backwards_and_by_parts():
    """Offsets may be negative or fractional, and they add up."""
    code = sinusoidal(torch.arange(9), 10)
    torch.testing.assert_close(shift(shift(code, 2.5), -2.5), code)
    torch.testing.assert_close(shift(shift(code, 1), 2), shift(code, 3))
    assert shift(code.float(), 1).dtype == torch.float32


def test_concatenated_is_a_permutation():
    """Sines first, cosines second; scores do not notice."""
    code = torch.arange(10).reshape(2, 5)
    assert concatenated(code).tolist() == [[0, 2, 4, 1, 3], [5, 7, 9, 6, 8]]
    code = sinusoidal(torch.arange(8), 12)
    mixed = concatenated(code)
    torch.testing.assert_close(mixed @ mixed.T, code @ code.T)


def test_start_continues_the_sequence():
    """Embeddings fed in pieces get the codes of the whole sequence."""
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    whole = add_positions(x)
    parts = [
        add_positions(x[:, :4]),
        add_positions(x[:, 4:8], 4),
        add_positions(x[:, 8:], 8),
    ]
    assert torch.cat(parts, 1).equal(whole)
    torch.testing.assert_close(whole - x, naive(range(9), 6).expand(2, 9, 6))


def test_kit_properties():
    """Samples and times do not mix; the input stays as it was."""

    def run(draw):
        x = draw.normal(
            draw.size("B", 1, 3), draw.size("T", 1, 5), draw.size("D", 1, 7)
        )
        batch_independence(add_positions, x, draw)
        causality(add_positions, x, draw)
        no_input_mutated(add_positions, x)

    hold(run)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_error_budget(dtype):
    """The sum is rounded once or twice, not the positions: far positions stay exact."""
    x = torch.randn(1, 6, 16, dtype=torch.float64).to(dtype)
    out = add_positions(x, start=5000)
    exact = x.double() + naive(range(5000, 5006), 16)
    peer = x + naive(range(5000, 5006), 16).to(dtype)
    assert out.dtype == dtype
    assert largest_error(out, exact) <= error_budget(peer, exact)


def test_positions_never_fall_together():
    """In bfloat16, too, two thousand positions have two thousand codes."""
    code = add_positions(torch.zeros(1, 2000, 64, dtype=torch.bfloat16))[0]
    assert len(code.unique(dim=0)) == 2000


def test_gradients_pass_unchanged():
    """The derivative by x is 1; the code itself has no gradient."""
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(add_positions, (x,))
    (grad,) = torch.autograd.grad(add_positions(x).sum(), x)
    assert grad.equal(torch.ones_like(x))
    code = sinusoidal(torch.arange(3), 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: shift(c, 3), (code,))


def test_non_contiguous_input():
    """Transposed embeddings and strided positions are read as they stand."""
    x = torch.randn(4, 5, 2, dtype=torch.float64).transpose(0, 2)
    torch.testing.assert_close(add_positions(x), add_positions(x.contiguous()))
    assert sinusoidal(torch.arange(10)[::2], 4).equal(
        sinusoidal(torch.tensor([0, 2, 4, 6, 8]), 4)
    )
    code = sinusoidal(torch.arange(3), 4)
    assert shift(code.T.contiguous().T, 2).equal(shift(code, 2))


def test_nan_stays_where_it_is():
    """A NaN in one position of the input reaches no other."""
    x = torch.zeros(1, 3, 4)
    x[0, 1] = math.nan
    assert add_positions(x).isnan().all(2).tolist() == [[False, True, False]]


def test_no_matrix_products():
    """Sines and sums only."""
    assert count_flops(lambda: add_positions(torch.zeros(1, 9, 8))) == 0


def test_bad_input_is_named():
    """What came and what was expected."""
    with pytest.raises(ValueError, match=r"^size is 0, expected at least 1$"):
        frequencies(0)
    with pytest.raises(ValueError, match=r"^size is -2, expected at least 1$"):
        sinusoidal(torch.arange(3), -2)
    with pytest.raises(ValueError, match=r"^position has 2 axes, expected 1$"):
        sinusoidal(torch.zeros(2, 3), 4)
    for dtype in ("bool", "float16", "bfloat16"):
        with pytest.raises(
            ValueError,
            match=rf"^position has torch\.{dtype}, expected integers, "
            r"float32 or float64$",
        ):
            sinusoidal(torch.zeros(3, dtype=getattr(torch, dtype)), 4)
    with pytest.raises(ValueError, match=r"^x has shape \(2, 3\), expected 3 axes$"):
        add_positions(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"^start is -1, expected at least 0$"):
        add_positions(torch.zeros(1, 2, 3), -1)
    for shape in ((2, 3), (4,)):
        with pytest.raises(
            ValueError,
            match=r"^code has shape \(.*\), expected \(positions, even size\)$",
        ):
            shift(torch.zeros(shape), 1)


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.positions.sinusoidal").output
    assert "1  0.8415  0.5403  0.0100  1.0000" in out
    assert "wavelengths 6.28 to 60611 positions" in out
    assert "codes alone  : distance 5 scores 23.50 to 23.50" in out
    assert "with W_Q, W_K: distance 5 scores -" in out
    assert "FLOPs in matrix products: 0" in out
    assert "table of 4096 positions, D = 512, float32: 8 MiB" in out
    assert "float16: 1024 of 1024 positions differ; error 0.40" in out
    assert "bfloat16: 513 of 1024 positions differ; error 1.99" in out
    assert "cast at the end 2.4e-04" in out
    assert "cast at the end 2.0e-03" in out
    assert "add_positions: 128 different codes in a sample, samples alike: True" in out
    assert "seq_first: 1 different codes in a sample, samples alike: False" in out
    assert "slowest wave: 47117 here, 62832 there; gap 1.32" in out
