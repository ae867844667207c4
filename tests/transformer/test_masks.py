"""Masks: FlexAttention and double loops as oracles, padding, packing, pieces."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import flex_attention

from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import cached_equals_full, causality, padding_invariance
from snippets.transformer.masks import (
    attend,
    causal,
    combine,
    documents,
    padding,
    position_ids,
    prefix,
    price,
)
from tests.running import run_main


# --8<-- [start:equals-flex]
def test_equals_flex_attention():
    """Each mask equals what FlexAttention makes of its rule, with T from 1 to S."""
    B, S = 3, 7
    keep = torch.rand(B, S) < 0.6
    document, length = torch.randint(3, (B, S)), torch.tensor([0, 4, 7])
    for T in range(1, S + 1):
        past = S - T
        pairs = {
            "causal": (causal(T, S), lambda b, h, t, s, past=past: s <= t + past),
            "prefix": (
                prefix(length, T, S),
                lambda b, h, t, s, past=past: (s <= t + past) | (s < length[b]),
            ),
            "padding": (padding(keep, T), lambda b, h, t, s: keep[b, s]),
            "documents": (
                documents(document, T),
                lambda b, h, t, s, past=past: document[b, t + past] == document[b, s],
            ),
        }
        for name, (ours, rule) in pairs.items():
            theirs = flex_attention.create_mask(rule, B, 2, T, S, device=keep.device)
            assert combine(B, 2, ours).equal(theirs), name
    print("causal, prefix, padding, documents: equal for T = 1 to", S)


# --8<-- [end:equals-flex]


# --8<-- [start:padded-equals-unpadded]
def test_padded_equals_unpadded():
    """On either side padding of NaN changes nothing; rows of padding are zeros."""
    x, nan = torch.randn(1, 2, 4, 8), torch.full((1, 2, 3, 8), float("nan"))
    alone = attend(x, x, x, combine(1, 2, causal(4, 4)))
    for side, parts, mine in (
        ("left", (nan, x), slice(3, 7)),
        ("right", (x, nan), slice(0, 4)),
    ):
        long, keep = torch.cat(parts, dim=2), torch.zeros(1, 7, dtype=torch.bool)
        keep[:, mine] = True
        # A right-padded query sees earlier keys: clear it, what it says is not read.
        q = long.nan_to_num()
        out = attend(q, long, long, combine(1, 2, causal(7, 7), padding(keep, 7)))
        torch.testing.assert_close(out[:, :, mine], alone)
        assert position_ids(keep)[0, mine].tolist() == [0, 1, 2, 3]
        print(side, "padding: rows of zeros:", (out[0, 0] == 0).all(-1).sum().item())


# --8<-- [end:padded-equals-unpadded]


# --8<-- [start:packed-equals-separate]
def test_packed_equals_separate():
    """Documents in one row, of lengths 3, 1 and 4, equal each alone."""
    x, lengths = torch.randn(1, 2, 8, 16).double(), [3, 1, 4]
    document = torch.arange(3).repeat_interleave(torch.tensor(lengths)).unsqueeze(0)
    packed = attend(x, x, x, combine(1, 2, causal(8, 8), documents(document, 8)))
    for one, out in zip(x.split(lengths, 2), packed.split(lengths, 2), strict=True):
        n = one.shape[2]
        torch.testing.assert_close(
            out, attend(one, one, one, combine(1, 2, causal(n, n)))
        )
    seen = combine(1, 1, causal(8, 8), documents(document, 8)).sum(-1)
    print("positions in the documents:", (seen[0, 0] - 1).tolist())


# --8<-- [end:packed-equals-separate]


def test_pieces_equal_whole():
    """Queries in pieces of 3, 1 and 4 against a growing cache equal one pass."""
    x, keep = torch.randn(2, 2, 8, 16).double(), torch.rand(2, 8) < 0.7
    whole = attend(x, x, x, combine(2, 2, causal(8, 8), padding(keep, 8)))
    pieces, end = [], 0
    for T in (3, 1, 4):
        end += T
        mask = combine(2, 2, causal(T, end), padding(keep[:, :end], T))
        cache = x[:, :, :end]
        pieces.append(attend(x[:, :, end - T : end], cache, cache, mask))
    torch.testing.assert_close(torch.cat(pieces, dim=2), whole)
    print("pieces of", [piece.shape[2] for piece in pieces], "equal one pass of 8")


@given(seed=st.integers(0, 999), T=st.integers(1, 6), S=st.integers(1, 6))
def test_equals_double_loops(seed, T, S):
    """Pair by pair in plain Python, T > S, too."""
    torch.manual_seed(seed)
    B = 2
    keep, length = torch.rand(B, S) < 0.6, torch.randint(-1, S + 2, (B,))
    past = torch.tensor([[s + T <= t + S for s in range(S)] for t in range(T)])
    assert causal(T, S).equal(past)
    assert causal(T, S).dtype == torch.bool
    ahead = prefix(length, T, S)
    both = combine(B, 3, causal(T, S), padding(keep, T), ahead)
    assert both.shape == (B, 3, T, S)
    for b in range(B):
        for t in range(T):
            for s in range(S):
                free = s < length[b].item() or bool(past[t, s])
                assert ahead[b, t, s].item() == free
                expected = bool(past[t, s]) and bool(keep[b, s])
                assert both[b, :, t, s].tolist() == [expected] * 3
    document = torch.randint(3, (B, S))
    if T <= S:
        mask = documents(document, T)
        for b, t, s in torch.cartesian_prod(*map(torch.arange, (B, T, S))).tolist():
            same = document[b, S - T + t] == document[b, s]
            assert mask[b, t, s].item() == same.item()
    count = [max(0, int(keep[0, : s + 1].sum()) - 1) for s in range(S)]
    assert position_ids(keep)[0].tolist() == count
    assert position_ids(keep).dtype == torch.int64


def test_causal_takes_no_notice_of_the_future():
    """With T = S, for prefixes of 0 and 1 as well."""

    def f(x):
        T = x.shape[1]
        mask = prefix(torch.tensor([0, 1]), T, T)
        return attend(*[x.unsqueeze(1)] * 3, combine(2, 1, causal(T, T), mask))[:, 0]

    hold(lambda draw: causality(f, draw.normal(2, 6, 4), draw))
    assert prefix(torch.tensor([1]), 4, 4)[0].equal(causal(4, 4))


def test_prefix_is_bidirectional():
    """Outputs of the prefix equal attention without any mask over the prefix."""
    x = torch.randn(1, 1, 6, 8).double()
    out = attend(x, x, x, combine(1, 1, prefix(torch.tensor([4]), 6, 6)))
    start = x[:, :, :4]
    torch.testing.assert_close(out[:, :, :4], attend(start, start, start))
    torch.testing.assert_close(out[:, :, 5:], attend(x[:, :, 5:], x, x))


def test_padding_may_hold_anything():
    """The kit's property: padding of 100, Inf or NaN, right-padded."""

    def f(x, keep):
        q = x.nan_to_num(posinf=0.0).unsqueeze(1)
        B, T = keep.shape
        mask = combine(B, 1, padding(keep, T))
        return attend(q, x.unsqueeze(1), x.unsqueeze(1), mask)[:, 0]

    hold(lambda draw: padding_invariance(f, draw.normal(2, 5, 4), draw))


def test_any_pieces_equal_whole():
    """The kit's property, with drawn lengths."""

    def full(x):
        T = x.shape[1]
        return attend(*[x.unsqueeze(1)] * 3, combine(2, 1, causal(T, T)))[:, 0]

    def step(piece, cache):
        seen = piece if cache is None else torch.cat([cache, piece], dim=1)
        mask = combine(2, 1, causal(piece.shape[1], seen.shape[1]))
        out = attend(piece.unsqueeze(1), *[seen.unsqueeze(1)] * 2, mask)[:, 0]
        return out, seen

    hold(lambda draw: cached_equals_full(full, step, draw.normal(2, 6, 4), draw))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_masked_attention_equals_sdpa(dtype):
    """Outputs and gradients, blind rows and huge scores included, in every dtype."""
    keep = torch.tensor([[0, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    document = torch.tensor([[0, 0, 0, 1, 2, 3], [5, 5, 5, 5, 7, 7]])
    mask = combine(2, 3, causal(4, 6), padding(keep, 4), documents(document, 4))
    assert (~mask.any(-1)).any()
    for size in (1.0, 30.0):
        x = size * torch.randn(2, 3, 6, 8)
        results = []
        for call, kind in (
            (attend, dtype),
            (F.scaled_dot_product_attention, dtype),
            (F.scaled_dot_product_attention, torch.float64),
        ):
            # Rounded to the dtype first, so that all three see one input.
            k = x.to(dtype).to(kind).requires_grad_()
            out = call(k[:, :, 2:], k, k, mask)
            (grad,) = torch.autograd.grad(out.square().sum(), k)
            results.append((out, grad))
        for ours, theirs, exact in zip(*results, strict=True):
            assert largest_error(ours, exact) <= error_budget(theirs, exact)


def test_heads_share_one_mask():
    """A view: no memory for the heads, none for the queries of a padding mask."""
    keep = torch.ones(2, 5, dtype=torch.bool)
    assert padding(keep, 4).untyped_storage().nbytes() == 10
    mask = combine(2, 8, causal(5, 5), padding(keep, 5))
    assert mask.untyped_storage().nbytes() == 2 * 25
    assert mask.stride(1) == 0


def test_inputs_stay_as_they_were():
    """And a mask that is not contiguous is as good."""
    keep = (torch.rand(5, 2) < 0.5).mT
    before, mask = keep.clone(), causal(5, 5)
    combine(2, 3, mask, padding(keep, 5))
    position_ids(keep)
    assert keep.equal(before)
    assert mask.equal(causal(5, 5))
    assert padding(keep, 5).equal(padding(keep.contiguous(), 5))


def test_inf_behind_a_mask():
    """Neither forward nor backward lets it out."""
    x = torch.randn(1, 1, 4, 4)
    x[:, :, 3] = math.inf
    q = torch.randn(1, 1, 4, 4, requires_grad=True)
    keep = torch.tensor([[True, True, True, False]])
    out = attend(q, x, x, combine(1, 1, padding(keep, 4)))
    out.sum().backward()
    assert out.isfinite().all()
    assert q.grad.isfinite().all()


def test_bad_input_is_named():
    """What came and what was expected."""
    for call in (lambda: causal(0, 3), lambda: padding(torch.ones(1, 3) > 0, 0)):
        with pytest.raises(
            ValueError, match=r"^T is 0 and S is 3, expected at least 1 of each$"
        ):
            call()
    with pytest.raises(ValueError, match=r"^T is 3 and S is 0, expected at least"):
        causal(3, 0)
    with pytest.raises(ValueError, match=r"^T is 1 and S is 0, expected at least"):
        position_ids(torch.ones(2, 0, dtype=torch.bool))
    message = r"^length is torch\.{} of shape \({}\), expected torch\.int64 of shape \(batch,\)$"
    with pytest.raises(ValueError, match=message.format("float32", "2,")):
        prefix(torch.ones(2), 3, 3)
    with pytest.raises(ValueError, match=message.format("int64", "1, 2")):
        prefix(torch.ones(1, 2, dtype=torch.int64), 3, 3)
    for call in (position_ids, lambda keep: padding(keep, 3)):
        with pytest.raises(
            ValueError, match=r"^keep has torch\.float32, expected torch\.bool$"
        ):
            call(torch.ones(2, 3))
        with pytest.raises(
            ValueError, match=r"^keep has shape \(3,\), expected \(batch, keys\)$"
        ):
            call(torch.ones(3, dtype=torch.bool))
    with pytest.raises(
        ValueError, match=r"^document has torch\.float32, expected torch\.int64$"
    ):
        documents(torch.ones(2, 3), 3)
    with pytest.raises(
        ValueError, match=r"^T is 4, document has 3 positions: expected T ≤ 3$"
    ):
        documents(torch.ones(2, 3, dtype=torch.int64), 4)
    with pytest.raises(ValueError, match=r"^T is 0 and S is 3, expected"):
        documents(torch.ones(2, 3, dtype=torch.int64), 0)
    with pytest.raises(ValueError, match=r"^no mask came, expected at least one$"):
        combine(1, 1)
    with pytest.raises(
        ValueError, match=r"^mask 1 has torch\.float32, expected torch\.bool$"
    ):
        combine(1, 1, causal(2, 2), torch.ones(2, 2))
    with pytest.raises(
        ValueError,
        match=r"^mask 1 has shape \(1, 3\), expected \(3, 3\) or \(2, 3, 3\)$",
    ):
        combine(2, 1, causal(3, 3), causal(1, 3))


def test_price():
    """T² bytes for all heads; 4·H·T²·64 FLOPs with or without; blocks of 128 × 128."""
    assert price(H=4, T=1024) == [
        "mask 1 MiB, scores 16 MiB",
        "MFLOPs without a mask 1074, with 1074",
        "causal: FlexAttention skips 43.8% of blocks",
        "packed: FlexAttention skips 81.2% of blocks",
    ]
    assert price(H=1, T=256)[2:] == [
        "causal: FlexAttention skips 25.0% of blocks",
        "packed: FlexAttention skips 25.0% of blocks",
    ]


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.transformer.masks").output
    for line in (
        "causal, T = 2 of S = 5: [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]",
        "position ids: [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]",
        "mask (2, 4, 5, 5) keys seen: [[0, 0, 1, 2, 3], [1, 2, 3, 4, 5]]",
        "norms of the outputs: ['0.00', '0.00', '3.46', '2.56', '1.44']",
        "mask 1 MiB, scores 32 MiB",
        "MFLOPs without a mask 2147, with 2147",
        "causal: FlexAttention skips 43.8% of blocks",
        "packed: FlexAttention skips 81.2% of blocks",
        "tril: the two newest queries see [1, 2] keys",
        "causal: the two newest queries see [4, 5] keys",
        "keys hidden: padding of 100 moves output 0 by 0.00",
        "queries hidden: padding of 100 moves output 0 by 0.29",
        "0 1 2 3 4: differs from the unpadded by 3.41",
        "position_ids: differs from the unpadded by 0.00",
    ):
        assert line in out
