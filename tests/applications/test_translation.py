"""The three translators: padding, the future, learning, decoding, measures, weights."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu import sentence_bleu

from snippets.applications import translation as page
from snippets.applications.blocks import equal_weights
from snippets.applications.parallel_text import Pair, read_pairs
from snippets.applications.translation import (
    BEGIN,
    BLEU_METRIC,
    END,
    PAD,
    UNKNOWN,
    Recurrent,
    Transformer,
    attention_of,
    common_pairs,
    make_batches,
    measure,
    number,
    say,
    train,
    translate,
    words_of,
)
from snippets.foundations.additive import AdditiveAttention
from snippets.properties.error_budget import error_budget, largest_error

KINDS = ("fixed vector", "attention", "Transformer")
PAIRS = [
    Pair("我看书", "I read books.", 1, 11),
    Pair("他看书", "He reads books.", 2, 12),
    Pair("他们看电影了", "They saw a film.", 3, 13),
    Pair("我们不看", "We don't read.", 4, 14),
    Pair("书", "A book.", 5, 15),
]


def build(kind: str, size: int = 16, tokens: int = 30):
    """Return a small translator of the kind, in eval mode."""
    if kind == "Transformer":
        model = Transformer(tokens, tokens, size, layers=2)
    else:
        attention = AdditiveAttention(2 * size, 2 * size, 8)
        model = Recurrent(
            tokens, tokens, size, attention if kind == "attention" else None
        )
    return model.eval()


def numbered():
    """Return the numbers of the small corpus."""
    return (
        number([list(pair.zh) for pair in PAIRS]),
        number([words_of(pair.en) for pair in PAIRS]),
    )


# ---- words, pairs, batches ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I don't know.", ["i", "don't", "know", "."]),
        ("It’s 5:30, Tom!", ["it’s", "5", ":", "30", ",", "tom", "!"]),
        ('"Why?"', ['"', "why", "?", '"']),
        ("", []),
    ],
)
def test_words(text, expected):
    assert words_of(text) == expected


def test_common_pairs_equal_a_naive_count():
    """Length and frequency as an independent loop finds them; the order stays."""
    pairs = read_pairs()[:300]
    text = " ".join(" ".join([*p.zh, *words_of(p.en)]) for p in pairs).split(" ")
    found = common_pairs(pairs, longest=10, often=5)
    expected = [
        p
        for p in pairs
        if 4 <= len(p.zh) <= 10
        and all(text.count(c) >= 5 for c in [*p.zh, *words_of(p.en)])
    ]
    assert 3 < len(expected) < 290
    assert found == expected


def test_numbers_are_distinct_and_leave_the_special_ones():
    zh, en = numbered()
    assert sorted(zh.values()) == list(
        range(4, 4 + len(set("".join(p.zh for p in PAIRS))))
    )
    assert sorted(en.values()) == list(range(4, 4 + len(en)))
    assert {"books", "don't", "."} < set(en)


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_batches_hold_every_pair_in_order(size):
    """Both sides come back, padding at the end only, BEGIN and END around the target."""
    zh, en = numbered()
    del zh["电"]
    name = {n: c for c, n in zh.items()} | {UNKNOWN: "电"}
    spell = {n: w for w, n in en.items()}
    found = []
    for source_BS, target_BT in make_batches(PAIRS, zh, en, size):
        assert len(source_BS) <= size
        for source, target in zip(source_BS.tolist(), target_BT.tolist(), strict=True):
            assert target[0] == BEGIN
            end = target.index(END)
            assert not any(target[end + 1 :])
            length = sum(n != PAD for n in source)
            assert not any(source[length:])
            found.append(
                (
                    "".join(name[n] for n in source[:length]),
                    [spell[n] for n in target[1:end]],
                )
            )
    assert found == [(pair.zh, words_of(pair.en)) for pair in PAIRS]


# ---- the models ----


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_padding_and_the_future_change_nothing(kind, data):
    """A sentence in a padded batch is read as alone; later words change no earlier one."""
    torch.manual_seed(0)
    model = build(kind)
    exact = copy.deepcopy(model).double()
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    S = max(lengths) + data.draw(st.integers(0, 2))
    T, seen = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    source_BS = torch.randint(4, 30, (len(lengths), S))
    for row, length in enumerate(lengths):
        source_BS[row, length:] = PAD
    before_BT = torch.randint(4, 30, (len(lengths), T))
    batch_any = model.decode(model.encode(source_BS), before_BT)
    assert batch_any.shape == (len(lengths), T, 16)
    for row, length in enumerate(lengths):
        alone_any, exact_any = (
            each.decode(
                each.encode(source_BS[row : row + 1, :length]),
                before_BT[row : row + 1, :seen],
            )[0]
            for each in (model, exact)
        )
        allowed = error_budget(alone_any, exact_any, factor=4)
        assert largest_error(batch_any[row, :seen], exact_any) <= allowed


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_character_reaches_every_word(kind):
    """No model is cut off from part of the sentence."""
    model = build(kind)
    source_1S, before_1T = torch.randint(4, 30, (1, 6)), torch.randint(4, 30, (1, 3))
    once = model.decode(model.encode(source_1S), before_1T)
    for place in range(6):
        other_1S = source_1S.clone()
        other_1S[0, place] = 4 + (source_1S[0, place] - 3) % 26
        again = model.decode(model.encode(other_1S), before_1T)
        assert ((once - again).abs().amax(-1) > 1e-7).all()


@pytest.mark.parametrize("kind", KINDS)
def test_loss_goes_down_and_the_corpus_is_learned_by_heart(kind):
    """A few pairs are learned: said word for word, and BLEU is 100."""
    zh, en = numbered()
    batches = make_batches(PAIRS, zh, en, 5)
    model = build(kind, 16, max(len(zh), len(en)) + 4).train()
    losses = train(model, batches, 80, 0.01)
    assert losses[-1] < 0.1 * losses[0]
    said = say(model.eval(), batches, en)
    assert said == [pair.en.lower() for pair in PAIRS]


def test_loss_counts_real_words_only():
    """The loss of one step equals a loop over the words that are no padding."""
    zh, en = numbered()
    (source_BS, target_BT), *_ = make_batches(PAIRS, zh, en, 5)
    model = build("attention")
    with torch.no_grad():  # far from equal chances
        model.target.weight.mul_(20)
    state_any = model.decode(model.encode(source_BS), target_BT[:, :-1])
    surprise = []
    for b in range(5):
        for t in range(target_BT.shape[1] - 1):
            if target_BT[b, t + 1] != PAD:
                chance = torch.softmax(model.target.weight @ state_any[b, t], 0)
                surprise.append(-math.log(chance[target_BT[b, t + 1]].item()))
    found = train(model, [(source_BS, target_BT)], 20, 0.01)[0]
    assert found == pytest.approx(sum(surprise) / len(surprise), rel=1e-4)
    assert len(surprise) < target_BT[:, 1:].numel()


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_translation_takes_the_likeliest_word_each_time(kind):
    """In a batch as alone, one word at a time; nothing but PAD follows END."""
    model = build(kind).double()
    with torch.no_grad():
        model.target.weight[END] *= 3
    source_BS = torch.randint(4, 30, (6, 5))
    source_BS[1, 3:] = PAD
    said_BT = translate(model, source_BS, longest=7)
    assert said_BT.shape[1] <= 8
    for row, source in zip(said_BT.tolist(), source_BS, strict=True):
        words = [BEGIN]
        encoded = model.encode(source[source != PAD].unsqueeze(0))
        while len(words) < 8 and words[-1] != END:
            state = model.decode(encoded, torch.tensor([words]))[0, -1]
            words.append((model.target.weight @ state).argmax().item())
        assert row[: len(words)] == words
        assert set(row[len(words) :]) <= {PAD}


# ---- weights ----


@pytest.mark.parametrize("kind", KINDS[1:])
def test_weights_are_those_used(kind):
    """Rows sum to one, padding gets nothing, and no hook is left behind."""
    model = build(kind)
    source_BS, said_BT = torch.randint(4, 30, (2, 6)), torch.randint(4, 30, (2, 4))
    source_BS[1, 4:] = PAD
    weight_any = attention_of(model, source_BS, said_BT)
    assert weight_any.shape == (2, 4, 6)
    assert torch.allclose(weight_any.sum(-1), torch.ones(2, 4))
    assert (weight_any[1, :, 4:] == 0).all()
    assert not any(part._forward_hooks for part in model.modules())


@pytest.mark.parametrize("kind", KINDS[1:])
def test_equal_weights_are_equal_and_matter(kind):
    """The copy averages, its output differs, and the original is as it was."""
    model = build(kind)
    source_BS, said_BT = torch.randint(4, 30, (2, 6)), torch.randint(4, 30, (2, 4))
    source_BS[1, 4:] = PAD
    with torch.no_grad():  # far from uniform at first
        for layer in model.modules():
            for name in ("energy", "to_q"):
                if hasattr(layer, name):
                    getattr(layer, name).weight.mul_(20)
    before = {name: part.clone() for name, part in model.state_dict().items()}
    flat = equal_weights(model, "cross.to_q" if kind == "Transformer" else "energy")
    for row, count in ((0, 6), (1, 4)):
        weight_any = attention_of(flat, source_BS, said_BT)[row, :, :count]
        assert torch.allclose(weight_any, torch.full((4, count), 1 / count))
    learned_any = model.decode(model.encode(source_BS), said_BT)
    assert (
        flat.decode(flat.encode(source_BS), said_BT) - learned_any
    ).abs().max() > 1e-3
    assert all(part.equal(before[name]) for name, part in model.state_dict().items())


def test_figure_has_a_row_a_word_and_a_column_a_character(monkeypatch):
    shown = []
    monkeypatch.setattr(page.plt, "show", lambda: shown.append(page.plt.gca()))
    zh, en = numbered()
    page.draw_weights(build("attention"), PAIRS[2], zh, en)
    (axes,) = shown
    assert [label.get_text() for label in axes.get_xticklabels()] == list(PAIRS[2].zh)
    beside = [label.get_text() for label in axes.get_yticklabels()]
    assert beside == ["they", "saw", "a", "film", ".", "</s>"]
    assert axes.images[0].get_array().shape == (6, 6)
    page.plt.close("all")


# ---- measures ----


def test_measure_by_length_equals_the_parts_alone():
    """A perfect short sentence and a bad long one are told apart; case does not count."""
    pairs = [
        Pair("一二三四", "I am here now.", 1, 1),
        Pair("一" * 8, "He is at home today.", 2, 2),
        Pair("一" * 12, "They will never come back.", 3, 3),
    ]
    said = ["i am here now.", "he is at home now.", "no"]
    all_, short, middle, long = measure(said, pairs, BLEU_METRIC)
    assert short == pytest.approx(100)
    assert middle == pytest.approx(
        sentence_bleu(
            said[1], [pairs[1].en], lowercase=True, use_effective_order=False
        ).score
    )
    assert long < 5 < middle < all_ < short or long < middle < short
    assert "case:lc" in str(BLEU_METRIC.get_signature())


def test_the_race_is_fair():
    """The three models of the page differ by less than 2 % in parameters."""
    sizes = 900, 800
    models = (
        Recurrent(*sizes, 98, None),
        Recurrent(*sizes, 96, AdditiveAttention(192, 192, 48)),
        Transformer(*sizes, 96, layers=2),
    )
    counts = [sum(part.numel() for part in model.parameters()) for model in models]
    assert max(counts) < 1.02 * min(counts)
