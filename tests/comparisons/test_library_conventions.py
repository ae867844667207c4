"""Conventions: each row asserts itself; here the rows are pinned and varied."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from snippets.comparisons.library_conventions import (
    blind,
    itself,
    mixed_axes,
    pairs_to_halves,
    rotate_as_gptj,
    rotate_as_llama,
    row,
    seen,
)
from tests.running import run_main

# What the page prints, in its order; numbers that depend on the machine are left out.
ROWS = """
SDPA: 1100
masked_softmax of this guide: 1100
FlexAttention: 1100
masked_fill(mask, -inf): 0011
nn.MultiheadAttention, attn_mask: 0011
nn.MultiheadAttention, key_padding_mask: 0011
SDPA, float, 1 and 0: 1111
transformers, (B, S): 1100
transformers, (B, 1, T, S): True
SDPA, is_causal=True: 10000 11000
SDPA, causal_lower_right(T, S): 11110 11111
FlexAttention, t >= s: 10000 11000
FlexAttention, t + S - T >= s: 11110 11111
masked_softmax, tril(S - T): 11110 11111
transformers, 2 tokens after 3: 11110 11111
Llama, of 8 channels a pair is: [0, 4]
GPT-J, of 8 channels a pair is: [0, 1]
half-split, weights as they are: other scores
half-split, W_Q and W_K reordered: same scores
half-split, only W_Q reordered: other scores
SDPA, enable_gqa: 00001111
FlexAttention: 00001111
transformers, repeat_kv: 00001111
repeat: 01010101
transformers, num_key_value_heads and _groups: (2, 4)
SDPA on (B, H, T, K) mixes axis: [2]
SDPA on (B, T, H, K) mixes axis: [2]
transformers on (B, H, T, K) returns: (2, 6, 8, 4)
nn.MultiheadAttention mixes axis: [0]
the same, batch_first=True mixes axis: [1]
transformers mixes axis: [1]
SDPA, dropout_p=0.5, train: drops: True
F.dropout, train: drops: True
nn.MultiheadAttention, train: drops: True
transformers, train: drops: True
SDPA, dropout_p=0.5, eval: drops: True
F.dropout, eval: drops: True
nn.MultiheadAttention, eval: drops: False
transformers, eval: drops: False
masked_fill(mask, -inf): NaN
SDPA: zeros
FlexAttention: zeros
masked_softmax of this guide: zeros
SDPA, float, finfo.min: uniform
transformers, eager: uniform
transformers, sdpa: zeros
nn.MultiheadAttention: NaN
need_weights=False: zeros
need_weights=False, fast path: NaN
F.softmax without dim mixes axis: [0]
"""


@pytest.mark.filterwarnings("ignore")
def test_demonstration():
    """Every row, word for word; the fast path and the device are put back."""
    device = torch.get_default_device()
    lines = run_main("snippets.comparisons.library_conventions").output.splitlines()
    shown = [one for one in lines if "differs by" not in one]
    assert shown == ROWS.strip().splitlines()
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.get_default_device() == device


def test_a_row_that_lies_stops_the_page(capsys):
    """What came and what the table says; the row is printed either way."""
    row("x", [1], [1])
    with pytest.raises(AssertionError, match=r"^x: \[1\], but the table says \[2\]$"):
        row("x", [1], [2])
    assert capsys.readouterr().out == "x: [1]\n" * 2


def test_seen_shows_the_first_head():
    """A query a word; any weight above zero counts."""
    weight = torch.zeros(2, 3, 2, 3)
    weight[0, 0, 0, 1], weight[0, 0, 1, 2], weight[1, 1] = 1e-9, 0.5, 1
    assert seen(weight) == "010 001"
    assert seen(weight[0, 0]) == "010 001"


def test_blind_tells_apart():
    """The four answers, for query 1 of the first head."""
    for value, word in (
        ([0.0, 0.0], "zeros"),
        ([0.5, 0.5], "uniform"),
        ([0.7, 0.3], "something else"),
        ([0.0, float("nan")], "NaN"),
    ):
        out = torch.ones(2, 3, 2)
        out[0, 1] = torch.tensor(value)
        assert blind(out) == word


@given(axis=st.integers(0, 2), sizes=st.tuples(*[st.integers(2, 4)] * 3))
def test_mixed_axes_finds_the_axis(axis, sizes):
    """A sum over one axis mixes that axis and no other."""
    x = torch.randn(*sizes, 3)
    assert mixed_axes(lambda x: x.sum(axis, keepdim=True).expand_as(x), x) == [axis]
    assert mixed_axes(lambda x: x * 2, x) == []


def test_itself_drops_the_weights():
    """The output alone, whether or not weights come with it."""
    layer, x = nn.MultiheadAttention(4, 1, batch_first=True), torch.randn(1, 3, 4)
    assert itself(layer)(x).equal(layer(x, x, x)[0])
    attention = F.scaled_dot_product_attention
    assert itself(attention)(x).equal(attention(x, x, x))


@given(H=st.integers(1, 3), T=st.integers(1, 9), half=st.integers(1, 6))
def test_rotations_are_those_of_the_formula(H, T, half):
    """Each pair (a, b) becomes (a·cos − b·sin, a·sin + b·cos), in both layouts."""
    x, K = torch.randn(H, T, 2 * half), 2 * half
    rate = torch.tensor([10000 ** (-2 * i / K) for i in range(half)])
    angle = torch.arange(T)[:, None] * rate  # Su et al. 2021, §3.2.2
    turn = torch.polar(torch.ones_like(angle), angle)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * turn
    expected = torch.view_as_real(pairs).flatten(-2)
    torch.testing.assert_close(rotate_as_gptj(x), expected, rtol=1e-5, atol=1e-5)
    halves = torch.complex(*x.chunk(2, dim=-1)) * turn
    expected = torch.cat([halves.real, halves.imag], dim=-1)
    torch.testing.assert_close(rotate_as_llama(x), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=10)
@given(H=st.integers(1, 3), half=st.integers(1, 3), T=st.integers(1, 5))
def test_reordered_weights_give_the_same_scores(H, half, T):
    """Bias included; without reordering they differ as soon as a head has two pairs."""
    K, x = 2 * half, torch.randn(T, 5)
    weights, biases = torch.randn(2, H * K, 5), torch.randn(2, H * K)

    def scores(weights, biases, rotate):
        q, k = (
            rotate((x @ w.T + b).unflatten(1, (H, K)).transpose(0, 1))
            for w, b in zip(weights, biases, strict=True)
        )
        return q @ k.mT

    moved = [pairs_to_halves(w, H) for w in weights]
    moved_biases = [pairs_to_halves(b, H) for b in biases]
    expected = scores(weights, biases, rotate_as_gptj)
    torch.testing.assert_close(
        scores(moved, moved_biases, rotate_as_llama), expected, rtol=1e-4, atol=1e-4
    )
    if half > 1 and T > 1:
        plain = scores(weights, biases, rotate_as_llama)
        assert (plain - expected).abs().max() > 1e-3
