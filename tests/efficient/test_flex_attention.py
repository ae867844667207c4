"""FlexAttention: PyTorch's own as oracle, definitions as loops, blocks, gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from snippets.efficient.flex_attention import (
    alibi,
    block_kinds,
    causal,
    chain,
    document,
    flex,
    flex_blocks,
    mask_at,
    places,
    prefix,
    sliding_window,
    soft_cap,
)
from snippets.properties.cost import count_flops, largest_bytes
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import causality
from tests.running import run_main

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without")


@pytest.fixture(autouse=True)
def _without_tracing(monkeypatch):
    """Run PyTorch's eager form directly: tracing it takes most of a minute here."""
    flag = "torch.nn.attention.flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"
    monkeypatch.setattr(flag, True)


# --8<-- [start:equals-pytorch]
def test_equals_pytorch():
    """Documents, ALiBi and cap together, T ≠ S, within PyTorch's own error."""
    mask_mod = document(torch.stack([torch.arange(90) // 30, torch.arange(90) // 7]))
    score_mod = chain(alibi(torch.tensor([0.5, 0.25])), soft_cap(5.0))
    block_mask = create_block_mask(mask_mod, 2, None, 70, 90)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        q = torch.randn(2, 2, 70, 16, dtype=dtype)
        k, v = torch.randn(2, 2, 2, 90, 16, dtype=dtype)
        double = [x.double() for x in (q, k, v)]
        exact = flex_attention(*double, score_mod, block_mask)
        theirs = flex_attention(q, k, v, score_mod, block_mask)
        for ours in (
            flex(q, k, v, score_mod, mask_mod),
            flex_blocks(q, k, v, mask_mod, score_mod, C=16),
        ):
            error, allowed = largest_error(ours, exact), error_budget(theirs, exact)
            assert error <= allowed
        print(f"{dtype}: largest error {error:.1e}, allowed {allowed:.1e}")


# --8<-- [end:equals-pytorch]


def test_block_kinds_equal_pytorch():
    """Partly and wholly seen blocks, row by row, also where lengths are ragged."""
    for T, S, C in ((256, 256, 64), (70, 90, 16), (5, 3, 8), (1, 40, 16), (64, 64, 1)):
        for mask_mod in (causal, sliding_window(20), prefix(17)):
            kinds = block_kinds(mask_mod, 1, 1, T, S, C)
            theirs = create_block_mask(mask_mod, 1, 1, T, S, BLOCK_SIZE=C)
            assert (kinds == 1).sum(-1).equal(theirs.kv_num_blocks.long())
            assert (kinds == 2).sum(-1).equal(theirs.full_kv_num_blocks.long())


@pytest.mark.parametrize("name", ["causal", "window", "prefix", "document"])
def test_masks_say_what_their_names_say(name):
    """Against loops over every position, whole-number arguments included."""
    number = torch.tensor([[0, 0, 1, 1, 1, 2], [0, 1, 1, 1, 2, 2]])
    mask_mod, rule = {
        "causal": (causal, lambda b, t, s: t >= s),
        "window": (sliding_window(3), lambda b, t, s: 0 <= t - s <= 2),
        "prefix": (prefix(2), lambda b, t, s: s <= t or s < 2),
        "document": (
            document(number),
            lambda b, t, s: s <= t and bool(number[b, t] == number[b, s]),
        ),
    }[name]
    mask = mask_at(mask_mod, 2, 3, torch.arange(6), torch.arange(6))
    assert mask.shape == (2, 3, 6, 6)
    for b in range(2):
        for t in range(6):
            for s in range(6):
                assert mask[b, :, t, s].tolist() == [rule(b, t, s)] * 3


def test_score_mods_are_the_formulas():
    """ALiBi subtracts slope · (t − s) per head, the cap is limit · tanh(x / limit)."""
    score = torch.randn(2, 3, 4, 5).double()
    slope = torch.tensor([0.5, 0.25, 2.0]).double()
    where = places(2, 3, torch.arange(4), torch.arange(5))
    assert [tuple(x.shape) for x in where] == [(2, 1, 1, 1), (3, 1, 1), (4, 1), (5,)]
    biased, capped = alibi(slope)(score, *where), soft_cap(2.0)(score, *where)
    both = chain(alibi(slope), soft_cap(2.0))(score, *where)
    for h in range(3):
        for t in range(4):
            for s in range(5):
                one = score[:, h, t, s] - slope[h] * (t - s)
                torch.testing.assert_close(biased[:, h, t, s], one)
                torch.testing.assert_close(both[:, h, t, s], 2 * torch.tanh(one / 2))
    torch.testing.assert_close(capped, 2 * torch.tanh(score / 2))
    assert chain()(score, *where).equal(score)


def with_bias(q, k, v, slope, mask):
    """Return ALiBi by PyTorch's SDPA with an added mask, which has a backward."""
    t, s = torch.arange(q.shape[2])[:, None], torch.arange(k.shape[2])
    bias = (-slope[:, None, None] * (t - s)).to(q)
    return F.scaled_dot_product_attention(q, k, v, bias.masked_fill(~mask, -math.inf))


@settings(max_examples=15)
@given(
    seed=st.integers(0, 99),
    T=st.integers(1, 6),
    S=st.integers(1, 6),
    C=st.integers(1, 7),
    width=st.integers(1, 7),
)
def test_outputs_and_gradients_equal_sdpa(seed, T, S, C, width):
    """FlexAttention has no backward on the CPU; SDPA with an added mask has one."""
    torch.manual_seed(seed)
    slope = torch.tensor([0.5, 0.1])
    leaves = [
        torch.randn(2, 2, n, 4, dtype=torch.float64, requires_grad=True)
        for n in (T, S, S)
    ]
    mask_mod = sliding_window(width)
    mask = mask_at(mask_mod, 2, 2, torch.arange(T), torch.arange(S))
    weight = torch.randn(2, 2, T, 4, dtype=torch.float64)
    results = [
        (out, *torch.autograd.grad((out * weight).sum(), leaves))
        for out in (
            with_bias(*leaves, slope, mask),
            flex(*leaves, alibi(slope), mask_mod),
            flex_blocks(*leaves, mask_mod, alibi(slope), C),
        )
    ]
    for other in results[1:]:
        for ours, theirs in zip(other, results[0], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_without_functions_it_is_plain_attention():
    """No score_mod and no mask_mod: SDPA."""
    q, k, v = torch.randn(2, 3, 5, 8).double(), *torch.randn(2, 2, 3, 7, 8).double()
    torch.testing.assert_close(flex(q, k, v), F.scaled_dot_product_attention(q, k, v))


def test_scores_arrive_scaled_and_in_float32():
    """A score_mod sees q·k / √K, in float32 for half precision."""
    q, k = torch.randn(1, 2, 3, 16), torch.randn(1, 2, 4, 16)
    seen = []

    def spy(score, *where):
        seen.append(score)
        return score

    flex(q.double(), k.double(), k.double(), spy)
    torch.testing.assert_close(seen[0], q.double() @ k.double().mT / 4)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        out = flex(q.to(dtype), k.to(dtype), k.to(dtype), spy)
        assert out.dtype == dtype
        assert seen[-1].dtype == torch.float32


def test_a_score_mod_cannot_uncover_a_key():
    """Hidden is hidden whatever the score_mod makes of the score."""
    q, v = torch.randn(1, 1, 4, 8), torch.eye(4)[None, None]
    weight = flex(q, q, v, lambda score, *where: score * 0 + 1e4, causal)[0, 0]
    torch.testing.assert_close(
        weight, torch.ones(4, 4).tril() / torch.arange(1, 5)[:, None]
    )


def test_causality_of_every_causal_mask():
    """The future moves nothing."""
    for mask_mod in (causal, sliding_window(2)):
        for run in (flex, lambda *x, **y: flex_blocks(*x, **y, C=2)):
            hold(
                lambda draw, mask_mod=mask_mod, run=run: causality(
                    lambda x: run(x, x, x, mask_mod=mask_mod),
                    draw.normal(1, 2, 5, 4),
                    draw,
                    axis=2,
                )
            )


def test_blind_queries_and_nan_behind_the_mask():
    """Zeros, and finite gradients, with NaN and Inf in what nobody sees."""
    mask_mod = lambda b, h, t, s: (t != 1) & (s < 3)  # noqa: E731
    clean = torch.randn(1, 2, 5, 4).double()
    dirty = clean.clone()
    dirty[:, :, 3], dirty[:, :, 4] = math.nan, math.inf
    q = torch.randn(1, 2, 5, 4).double()
    expected = flex(q, clean, clean, mask_mod=mask_mod)
    q[:, :, 1] = math.nan
    for run in (flex, flex_blocks):
        leaves = [x.clone().requires_grad_() for x in (q, dirty, dirty)]
        out = run(*leaves, mask_mod=mask_mod)
        assert not out[:, :, 1].any()
        torch.testing.assert_close(out, expected)
        for grad in torch.autograd.grad(out.sum(), leaves):
            assert grad.isfinite().all()


def test_nothing_visible_at_all():
    """Every block empty: zeros, and no product is taken."""
    q = torch.randn(1, 1, 4, 2)
    never = lambda b, h, t, s: (t >= s) & (t < 0)  # noqa: E731
    assert flex_blocks(q, q, q, never, C=2).equal(torch.zeros(1, 1, 4, 2))
    assert count_flops(lambda: flex_blocks(q, q, q, never, C=2)) == 0


def test_huge_scores():
    """Logits of ±1e4 stay finite in every dtype."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        q = (torch.randn(1, 1, 6, 4) * 100).to(dtype)
        out = flex(q, q, q, mask_mod=causal)
        assert out.isfinite().all()
        assert flex(q, q, q, soft_cap(3.0), causal).isfinite().all()


def test_inputs_need_not_be_contiguous():
    """Transposed views give the same."""
    q = torch.randn(1, 6, 2, 4).transpose(1, 2)
    for run in (flex, flex_blocks):
        torch.testing.assert_close(
            run(q, q, q, mask_mod=causal), run(*[q.contiguous()] * 3, mask_mod=causal)
        )


def test_gradcheck():
    """Finite differences agree."""
    slope = torch.tensor([0.5, 0.25]).double()
    leaves = [torch.randn(1, 2, 3, 2).double().requires_grad_() for _ in range(3)]
    score_mod = chain(alibi(slope), soft_cap(2.0))
    assert torch.autograd.gradcheck(lambda *x: flex(*x, score_mod, causal), leaves)
    assert torch.autograd.gradcheck(
        lambda *x: flex_blocks(*x, causal, score_mod, C=2), leaves
    )


def test_kinds_by_hand():
    """Batch, head and both block axes, counted by hand; ragged blocks are never full."""
    number = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]])
    kinds = block_kinds(document(number), 2, 1, 4, 4, 2)
    assert kinds.tolist() == [[[[1, 0], [0, 1]]], [[[1, 0], [2, 1]]]]
    everything = lambda b, h, t, s: (t >= 0) & (s >= 0)  # noqa: E731
    assert block_kinds(everything, 1, 2, 3, 5, 2).tolist() == [
        [[[2, 2, 1], [1, 1, 1]]] * 2
    ]
    assert block_kinds(everything, 1, 1, 128, 256).tolist() == [[[[2, 2]]]]


def test_work_is_that_of_the_blocks():
    """FLOPs of a causal mask: (N + 1) / 2N of the dense ones."""
    x = torch.randn(2, 3, 64, 8)
    dense = count_flops(lambda: flex(x, x, x))
    assert dense == 4 * 2 * 3 * 64 * 64 * 8
    for C, share in ((16, 10 / 16), (32, 3 / 4), (64, 1)):
        assert (
            count_flops(lambda C=C: flex_blocks(x, x, x, causal, C=C)) == share * dense
        )
    assert count_flops(lambda: flex_blocks(x, x, x, causal)) == dense


def test_bad_input_is_named():
    """What came and what was expected."""
    q, k = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 5)
    with pytest.raises(ValueError, match=r"^key has size 5, query has size 4: they"):
        flex(q, k, k)
    with pytest.raises(ValueError, match=r"^key has size 5, query has size 4: they"):
        flex_blocks(q, k, k, causal)
    wrong = lambda b, h, t, s: (t >= s).float()  # noqa: E731
    with pytest.raises(
        ValueError, match=r"^mask_mod returned torch\.float32, expected torch\.bool$"
    ):
        flex(q, q, q, mask_mod=wrong)
    with pytest.raises(
        ValueError,
        match=r"^score_mod returned shape \(1, 2, 3\), expected \(1, 2, 3, 3\)$",
    ):
        flex(q, q, q, lambda score, *where: score.sum(-1))
    with pytest.raises(ValueError, match=r"^C is 0, expected a positive block size$"):
        flex_blocks(q, q, q, causal, C=0)


def test_uncompiled_block_masks_make_the_whole_mask_first():
    """The page says so: one byte for each query and key."""
    for T in (256, 512):
        made = largest_bytes(lambda T=T: create_block_mask(causal, None, None, T, T))
        assert made >= T * T


def test_another_length_is_refused():
    """As the page says: a block mask fits one length."""
    q = torch.randn(1, 1, 256, 16)
    block_mask = create_block_mask(causal, None, None, 512, 512)
    with pytest.raises(ValueError, match=r"\(1, 1, 512, 512\) but got q_len=256"):
        flex_attention(q, q, q, block_mask=block_mask)


def test_pytorch_has_no_backward_here():
    """The page says so; where that changes, the page has to."""
    q = torch.randn(1, 1, 4, 16, requires_grad=True)
    if q.device.type == "cpu":
        with pytest.raises(
            NotImplementedError, match="does not support backward on CPU"
        ):
            flex_attention(q, q, q)


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.efficient.flex_attention").output
    for name, empty, partly, full, share in (
        ("causal", 120, 16, 120, "53.1%"),
        ("sliding_window(256)", 211, 30, 15, "17.6%"),
        ("prefix(256)", 119, 14, 123, "53.5%"),
        ("document", 204, 40, 12, "20.3%"),
    ):
        row = (
            f"{name:20} empty {empty:3}, partly {partly:2}, full {full:3} of 256 blocks"
        )
        assert f"{row}: {share} of the FLOPs" in out
    assert "blocks of sequence 1 that would be skipped: 9\n" in out
    assert "uncompiled, both give the same output: True" in out
    assert "sequence 0: sees 10 of 10 past keys, 6 of 6 future ones" in out
    assert "sequence 1: sees 0 of 10 past keys, 6 of 6 future ones" in out
