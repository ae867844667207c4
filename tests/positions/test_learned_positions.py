"""Learned positions: GPT-2 and BERT as oracles, padding, order, the end of the table."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets.positions.learned_positions import LearnedPositions, mix, position_ids
from snippets.properties.cost import count_flops
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import Broken, hold
from snippets.properties.kit import (
    batch_independence,
    cached_equals_full,
    causality,
    gradient_flow,
    no_input_mutated,
    permutation_equivariance,
    registered_parameters,
)
from tests.running import run_main


# --8<-- [start:equals-embedding]
def test_equals_embedding():
    """Outputs and gradients equal x + nn.Embedding, on any rows of the table."""
    add, x = LearnedPositions(9, 8).double(), torch.randn(2, 4, 8).double()
    peer = nn.Embedding(9, 8, _weight=add.table.detach().clone())
    position = torch.tensor([[0, 1, 2, 8], [3, 3, 0, 7]])
    ours, theirs = add(x, position), x + peer(position)
    torch.testing.assert_close(ours, theirs)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(add.table.grad, peer.weight.grad)
    print("largest difference", (ours - theirs).abs().max().item())


# --8<-- [end:equals-embedding]


# --8<-- [start:padding]
def test_padding_moves_nothing():
    """Left, right or in the middle: a token keeps its row, and the mask does the rest."""
    add, x = LearnedPositions(9, 8).double(), torch.randn(1, 3, 8).double()
    alone = add(x)
    for keep in ([0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 1, 0, 1]):
        keep = torch.tensor([keep]).bool()
        padded = torch.full((1, 5, 8), float("nan")).double()
        padded[keep] = x[0]
        torch.testing.assert_close(add(padded, position_ids(keep))[keep], alone[0])
        print(keep.int().tolist()[0], "has positions", position_ids(keep).tolist()[0])


# --8<-- [end:padding]


# --8<-- [start:order]
def test_order_without_positions():
    """Both directions: equivariant, not invariant. Causal: not even equivariant."""
    x = torch.randn(1, 5, 8).double()
    order = torch.tensor([3, 0, 4, 1, 2])
    both, causal = mix(x, False), mix(x, True)
    torch.testing.assert_close(mix(x[:, order], False), both[:, order])
    assert (mix(x[:, order], False) - both).abs().max() > 0.1
    torch.testing.assert_close(mix(x[:, order], False).mean(1), both.mean(1))
    gap = (mix(x[:, order], True) - causal[:, order]).abs().max()
    assert gap > 0.1
    print(f"causal attention is off by {gap:.2f} from permuting its outputs")


# --8<-- [end:order]


@pytest.mark.parametrize("pads", [0, 1, 3])
def test_equals_gpt2(pads):
    """GPT-2 adds the same rows, and left padding changes nothing given our positions."""
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(
        vocab_size=11, n_positions=16, n_embd=8, n_layer=2, n_head=2, resid_pdrop=0
    )
    model = GPT2Model(config).eval()
    add = LearnedPositions(16, 8)
    with torch.no_grad():
        add.table.copy_(model.wpe.weight)
    seen = []
    model.drop.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    words = torch.randint(11, (1, 6))
    alone = model(words).last_hidden_state
    torch.testing.assert_close(add(model.wte(words)), seen[0])
    keep = torch.ones(1, 6 + pads, dtype=torch.bool)
    keep[:, :pads] = False
    padded = nn.functional.pad(words, (pads, 0))
    out = model(
        padded, attention_mask=keep.long(), position_ids=position_ids(keep)
    ).last_hidden_state
    torch.testing.assert_close(out[:, pads:], alone, rtol=1e-4, atol=1e-5)
    assert largest_error(add.table, model.wpe.weight) == 0


def test_equals_bert():
    """BERT adds word, segment and position, then normalizes."""
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertEmbeddings

    config = BertConfig(vocab_size=11, hidden_size=8, max_position_embeddings=16)
    theirs = BertEmbeddings(config).eval()
    add = LearnedPositions(16, 8)
    with torch.no_grad():
        add.table.copy_(theirs.position_embeddings.weight)
    words = torch.randint(11, (2, 6))
    word = theirs.word_embeddings(words) + theirs.token_type_embeddings.weight[0]
    torch.testing.assert_close(theirs(words), theirs.LayerNorm(add(word)))


@given(
    keep=st.lists(
        st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=3
    )
)
def test_position_ids_count_the_tokens(keep):
    """The n-th token that is no padding has position n, padding has 0."""
    ids = position_ids(torch.tensor(keep))
    for row, kept in zip(ids.tolist(), keep, strict=True):
        assert [p for p, k in zip(row, kept, strict=True) if k] == list(
            range(sum(kept))
        )
        assert all(p == 0 for p, k in zip(row, kept, strict=True) if not k)
    assert ids.dtype == torch.int64


def test_newest_positions_go_on_from_the_cache():
    """Feeding pieces with the newest positions equals feeding all at once."""
    add = LearnedPositions(9, 4).double()
    start = [0]

    def step(piece, cache):
        start[0] = 0 if cache is None else cache
        end = start[0] + piece.shape[1]
        keep = torch.ones(len(piece), end, dtype=torch.bool)
        return add(piece, position_ids(keep, newest=piece.shape[1])), end

    def run(draw):
        x = draw.normal(2, draw.size("T", 1, 7), 4)
        cached_equals_full(add, step, x, draw)

    hold(run)
    keep = torch.tensor([[False, False, True, True]])
    assert position_ids(keep, 1).tolist() == [[1]]
    assert position_ids(keep, 4).tolist() == position_ids(keep).tolist()
    assert position_ids(keep, 0).shape == (1, 0)
    assert position_ids(torch.ones(2, 0, dtype=torch.bool)).shape == (2, 0)


def test_kit_properties():
    """Nothing mixes; every weight is registered and reached."""
    add = LearnedPositions(6, 4).double()

    def run(draw):
        x = draw.normal(draw.size("B", 1, 3), draw.size("T", 1, 6), 4)
        batch_independence(add, x, draw)
        causality(add, x, draw)
        no_input_mutated(add, x)

    hold(run)
    registered_parameters(add)
    gradient_flow(add, torch.randn(2, 6, 4, dtype=torch.float64))


def test_equivariance_is_lost_with_positions_or_a_causal_mask():
    """The kit finds a permutation in both cases, and none for plain attention."""
    add = LearnedPositions(6, 4, std=1.0).double()

    def run(draw, f):
        permutation_equivariance(f, draw.normal(1, 4, 4), draw)

    hold(lambda draw: run(draw, lambda x: mix(x, False)))
    for f in (lambda x: mix(add(x), False), lambda x: mix(x, True)):
        with pytest.raises(Broken, match="with positions permuted"):
            hold(lambda draw, f=f: run(draw, f))


def test_mix_is_attention():
    """Against PyTorch's kernel, causal and not, on batches."""
    x = torch.randn(3, 5, 8).double()
    for causal in (False, True):
        theirs = nn.functional.scaled_dot_product_attention(x, x, x, is_causal=causal)
        torch.testing.assert_close(mix(x, causal), theirs)


def test_only_used_rows_have_a_gradient():
    """A row that no sequence reaches is never trained."""
    add = LearnedPositions(9, 4).double()
    add(torch.randn(2, 5, 4).double()).square().sum().backward()
    assert add.table.grad.abs().sum(1).gt(0).tolist() == [True] * 5 + [False] * 4


def test_gradcheck():
    """Gradients agree with finite differences, a row used twice included."""
    add = LearnedPositions(5, 3).double()
    x = torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True)
    position = torch.tensor([[4, 0, 4, 2]])
    table = add.table

    def run(x, table):
        return torch.func.functional_call(add, {"table": table}, (x, position))

    assert torch.autograd.gradcheck(run, (x, table))


def test_initial_size():
    """Normal with deviation 0.02, or the one asked for."""
    table = LearnedPositions(300, 200).table
    assert 0.0195 < table.std() < 0.0205
    assert table.mean().abs() < 5e-4
    assert 0.49 < LearnedPositions(300, 200, std=0.5).table.std() < 0.51
    assert table.requires_grad
    assert table.shape == (300, 200)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_error_budget(dtype):
    """One sum in the dtype of the layer."""
    add = LearnedPositions(9, 8).to(dtype)
    x = torch.randn(2, 5, 8).to(dtype)
    out = add(x)
    exact = x.double() + add.table[:5].double()
    assert out.dtype == dtype
    assert largest_error(out, exact) <= error_budget(x + add.table[:5], exact)


def test_padding_may_hold_nan():
    """NaN in the padding reaches neither other tokens nor the table's gradient."""
    add = LearnedPositions(6, 4).double()
    keep = torch.tensor([[False, True, True]])
    x = torch.randn(1, 3, 4).double()
    x[0, 0] = math.nan
    out = add(x, position_ids(keep))
    out[keep].sum().backward()
    assert out[keep].isfinite().all()
    assert add.table.grad.isfinite().all()
    assert add.table.grad[:2].eq(1).all()


def test_non_contiguous_and_small_inputs():
    """Transposed input, int32 positions, one token, the last row."""
    assert LearnedPositions(1, 1)(torch.zeros(1, 1, 1)).shape == (1, 1, 1)
    add = LearnedPositions(3, 5).double()
    x = torch.randn(5, 2, 3).double().permute(1, 2, 0)
    torch.testing.assert_close(add(x), add(x.contiguous()))
    one = torch.zeros(1, 1, 5).double()
    last = torch.tensor([[2]], dtype=torch.int32)
    assert add(one, last)[0, 0].equal(add.table[2])
    assert add(torch.zeros(2, 0, 5).double()).shape == (2, 0, 5)


def test_no_matrix_products():
    """A lookup and a sum."""
    assert count_flops(lambda: LearnedPositions(9, 8)(torch.zeros(1, 9, 8))) == 0


def test_bad_input_is_named():
    """What came and what was expected."""
    add = LearnedPositions(4, 8)
    x = torch.zeros(2, 3, 8)
    for shape in ((0, 8), (4, 0)):
        with pytest.raises(
            ValueError,
            match=rf"^the table is {shape[0]} × {shape[1]}, expected at least 1 × 1$",
        ):
            LearnedPositions(*shape)
    for bad in (x[0], x[..., :7]):
        with pytest.raises(
            ValueError,
            match=r"^x has shape \(.*\), expected \(batch, positions, 8\)$",
        ):
            add(bad)
    with pytest.raises(
        ValueError, match=r"^position has shape \(2, 2\), expected \(2, 3\)$"
    ):
        add(x, torch.zeros(2, 2, dtype=torch.long))
    with pytest.raises(
        ValueError, match=r"^position has torch\.float32, expected int32 or int64$"
    ):
        add(x, torch.zeros(2, 3))
    for wrong in (4, -1, 99):
        position = torch.tensor([[0, wrong, 1], [1, 2, 3]])
        with pytest.raises(
            ValueError, match=rf"^position {wrong} has no row: the table ends at 3$"
        ):
            add(x, position)
    with pytest.raises(
        ValueError, match=r"^position 4 has no row: the table ends at 3$"
    ):
        add(torch.zeros(1, 5, 8))
    for keep, shape, dtype in (
        (torch.ones(3).bool(), r"\(3,\)", "bool"),
        (torch.ones(2, 3), r"\(2, 3\)", "float32"),
    ):
        with pytest.raises(
            ValueError,
            match=rf"^keep has {shape} and torch\.{dtype}, expected "
            r"\(batch, positions\) and torch\.bool$",
        ):
            position_ids(keep)
    for newest in (4, -1):
        with pytest.raises(ValueError, match=rf"^newest is {newest}, expected 0 to 3$"):
            position_ids(torch.ones(2, 3).bool(), newest)


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.positions.learned_positions").output
    assert "positions: [[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]]" in out
    assert "newest only: [[5], [3]]" in out
    assert (
        "both directions: equivariant True, invariant False, mean invariant True" in out
    )
    assert "causal: equivariant False, invariant False, mean invariant False" in out
    assert "['1.000', '0.500', '0.333', '0.250', '0.200']" in out
    assert "1 causal layers: swapping tokens 0 and 1 moves the last by 0.0e+00" in out
    assert "2 causal layers: swapping tokens 0 and 1 moves the last by 3.2e-02" in out
    assert "parameters of GPT-2's table: 786432" in out
    assert "FLOPs in matrix products: 0" in out
    assert "nn.Embedding: index out of range in self" in out
    assert "table[-1] is silently row 15: True" in out
    assert "LearnedPositions: position 16 has no row: the table ends at 15" in out
    assert "padding ignored: a left-padded row moves by 0.079" in out
    assert "padding counted: a left-padded row moves by 0.000" in out
    assert "5 of 16 rows got a gradient" in out
    assert "nn.Embedding: positions are 44.2 times as large" in out
    assert "here: positions are 1.0 times as large" in out
