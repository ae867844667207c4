"""The tagged text and its split, the taggers, the measures against independent counts."""

from collections import Counter
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from snippets.applications import tagging as page
from snippets.applications.tagging import (
    ENCODERS,
    RelativeAttention,
    Tagger,
    accuracy,
    answers,
    chinese_sentences,
    english_documents,
    features,
    linear_window,
    make_batches,
    most_frequent,
    name_f1,
    numbering,
    profile,
    spans,
    train,
    unseen_elsewhere,
)
from snippets.properties.error_budget import error_budget, largest_error


@pytest.fixture(scope="module")
def chinese():
    return chinese_sentences()


@pytest.fixture(scope="module")
def documents():
    return english_documents()


def small(sentences, count=60):
    """Return batches of a few sentences, and their numbering."""
    part = sentences[:count]
    number_of, tag_of = numbering(part)
    return make_batches(part, number_of, tag_of), number_of, tag_of


def words_of(sentence):
    return tuple(word for word, _ in sentence)


# ---- the data ----


def test_counts_of_the_newspaper(chinese):
    """Counted from the file another way: 44 tags, no brackets, no sentence twice."""
    assert len(chinese) == 36381
    texts = ["".join(words_of(sentence)) for sentence in chinese]
    assert len(set(texts)) == len(texts)
    assert all(3 <= len(sentence) <= 40 for sentence in chinese)
    assert not any("[" in tag or "]" in tag for s in chinese for _, tag in s)
    assert all(word and tag for s in chinese for word, tag in s)
    # A doubled mark, "！！", begins the next sentence: six times.
    ends = Counter(word for s in chinese for word, _ in s[1:-1])
    assert not {"。", "！", "？"} & set(ends)


def test_counts_of_the_news_items(documents):
    """15 items, 226 sentences, 3,140 words: as small as the page says."""
    assert len(documents) == 15
    assert sum(map(len, documents)) == 226
    words = [word for document in documents for s in document for word in s]
    assert len(words) == 3140
    begins = Counter(tag.split("|")[1] for _, tag in words if "|B-" in tag)
    assert begins == {"B-PER": 280, "B-LOC": 165, "B-ORG": 63, "B-MISC": 46}


def test_split_does_not_leak(chinese, documents):
    """No sentence of training is in the other parts, whichever language."""
    for parts in (
        [chinese[:4000], chinese[-3000:-1500], chinese[-1500:]],
        [list(chain(*documents[a:b])) for a, b in ((0, 11), (11, 15))],
    ):
        kept = unseen_elsewhere(parts)
        later = {words_of(s) for part in parts[1:] for s in part}
        assert not {words_of(s) for s in kept} & later
        assert len(kept) == sum(words_of(s) not in later for s in parts[0]) > 100


def test_features_are_word_start_and_end():
    assert features("江泽民") == ["江泽民", "江-", "-民"]
    assert features("Japan") == ["Japan", "J-", "-pan"]
    assert features("a") == ["a", "a-", "-a"]


def test_batches_hold_every_word_once(documents):
    part = list(chain(*documents))[:40]
    number_of, tag_of = numbering(part[:20])
    count = Counter(f for s in part[:20] for word, _ in s for f in features(word))
    assert set(number_of) == {f for f, n in count.items() if n > 1}
    found = []
    for feature_BT3, tag_BT in make_batches(part, number_of, tag_of, size=16):
        for row, tags in zip(feature_BT3.tolist(), tag_BT.tolist(), strict=True):
            length = sum(word[0] != 0 for word in row)
            assert not any(chain(*row[length:]))
            found.append((row[:length], tags[:length]))
    expected = [
        (
            [[number_of.get(f, 1) for f in features(word)] for word, _ in sentence],
            [tag_of.get(tag, -1) for _, tag in sentence],
        )
        for sentence in part
    ]
    assert sorted(found) == sorted(expected)


# ---- the models ----


@pytest.mark.parametrize("encoder", ENCODERS)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3), extra=st.integers(0, 3)
)
def test_padding_and_neighbors_in_the_batch_change_nothing(encoder, lengths, extra):
    model = Tagger(30, 5, encoder).double()
    rows = [torch.randint(1, 30, (length, 3)) for length in lengths]
    T = max(lengths) + extra
    feature_BT3 = torch.stack([F.pad(row, (0, 0, 0, T - len(row))) for row in rows])
    logit_BTE = model(feature_BT3)
    assert logit_BTE.shape == (len(rows), T, 5)
    for row, logits in zip(rows, logit_BTE, strict=True):
        alone = model(row.unsqueeze(0))[0]
        assert largest_error(logits[: len(row)], alone) <= 8 * error_budget(
            alone, alone
        )


def test_sizes_are_within_two_percent():
    """With the page's 9,000 features and 40 tags and more."""
    counts = [
        sum(p.numel() for p in Tagger(9000, 40, encoder).parameters())
        for encoder in ENCODERS
    ]
    assert max(counts) < 1.02 * min(counts)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_loss_goes_down(encoder, documents):
    batches, number_of, tag_of = small(list(chain(*documents)))
    model = Tagger(len(number_of) + 2, len(tag_of), encoder)
    losses = train(model, batches, epochs=15)
    assert len(losses) == 15 * len(batches)
    assert losses[-1] < 0.5 * losses[0]


def test_equal_weights_lose_the_order_but_for_a_trace():
    """Two other words change places: does the first word's answer change?"""
    here_1T3 = torch.randint(1, 30, (1, 6, 3))
    swapped_1T3 = here_1T3[:, [0, 4, 2, 3, 1, 5]]
    for encoder, norm, notices in (
        ("transformer", True, True),
        ("uniform", True, True),  # LayerNorm mixes word and place within a value
        ("uniform", False, False),  # a sum of words plus a sum of places
    ):
        model = Tagger(30, 5, encoder).double()
        if not norm:
            model.encoder.block.norm = torch.nn.Identity()
        change_E = model(here_1T3)[0, 0] - model(swapped_1T3)[0, 0]
        assert bool(change_E.abs().max() > 1e-9) == notices


def test_attention_of_the_lstm_is_used():
    model = Tagger(30, 5, "BiLSTM + attention")
    with torch.no_grad():
        model.encoder.attention.energy.weight.mul_(30)
    feature_BT3 = torch.randint(1, 30, (2, 6, 3))
    learned = model(feature_BT3)
    with torch.no_grad():
        model.encoder.attention.energy.weight.zero_()
    assert (learned - model(feature_BT3)).abs().max() > 1e-4


def test_relative_attention_without_tables_is_multi_head_attention():
    layer = RelativeAttention(8, 2).double()
    plain = page.MultiHeadAttention(8, 2).double()
    plain.load_state_dict(layer.state_dict(), strict=False)
    with torch.no_grad():
        layer.ak_7K.zero_()
        layer.av_7K.zero_()
    x = torch.randn(2, 5, 8).double()
    mask = (torch.arange(5) < torch.tensor([[5], [3]])).unsqueeze(1).expand(-1, 5, -1)
    out, expected = layer(x, None, mask), plain(x, None, mask)
    assert largest_error(out, expected) <= 4 * error_budget(expected, expected)


def test_relative_attention_sees_distance_only():
    """Shifted by one place, a sentence gets the same answers."""
    layer = RelativeAttention(8, 2).double()
    x = torch.randn(1, 6, 8).double()
    mask = torch.ones(1, 6, 6, dtype=torch.bool)
    mask[:, :, 0] = False
    late = layer(x, None, mask)[:, 1:]
    alone = layer(x[:, 1:], None, mask[:, 1:, 1:])
    assert largest_error(late, alone) <= 4 * error_budget(alone, alone)


def test_weights_of_relative_attention_are_those_it_mixes_with():
    layer = RelativeAttention(8, 2).double()
    with torch.no_grad():
        layer.av_7K.zero_()
    x, mask = torch.randn(1, 5, 8).double(), torch.ones(1, 5, 5, dtype=torch.bool)
    mixed = layer.attend(x, mask, weights=True) @ page.split_heads(layer.to_v(x), 2)
    expected = layer.attend(x, mask)
    assert largest_error(mixed, expected) <= 4 * error_budget(expected, expected)


# ---- measures ----


def test_accuracy_is_that_of_sklearn(documents):
    sentences = list(chain(*documents))[:40]
    gold = [[tag for _, tag in s] for s in sentences]
    found = most_frequent(sentences[20:], sentences)
    flat = [[tag.split("|")[0] for tag in chain(*rows)] for rows in (gold, found)]
    assert accuracy(gold, found) == pytest.approx(100 * accuracy_score(*flat))
    assert 0 < accuracy(gold, found) < 100


def spans_by_regex(tags):
    """Return the same spans by walking backwards: an independent count."""
    found, end = set(), None
    for place in reversed(range(len(tags))):
        name = tags[place].split("|")[-1]
        kind = name[2:] if "-" in name else name
        if kind not in {"PER", "LOC", "ORG", "MISC", "nr", "ns", "nt"}:
            end = None
            continue
        end = place + 1 if end is None else end
        before = tags[place - 1].split("|")[-1] if place else "O"
        joined = (before[2:] if "-" in before else before) == kind
        if name.startswith("B-") or not joined:
            found.add((place, end, kind))
            end = None
    return found


@given(
    st.one_of(
        st.lists(st.sampled_from(["nr", "ns", "nt", "n", "v"]), max_size=9),
        st.lists(
            st.sampled_from(["N|B-PER", "N|I-PER", "N|B-LOC", "N|I-LOC", "V|O"]),
            max_size=9,
        ),
    )
)
def test_spans_equal_an_independent_count(tags):
    assert spans(tags) == spans_by_regex(tags)


def test_f1_of_names_equals_that_of_sklearn(chinese):
    """Every span found or wanted is one yes-or-no case of sklearn's F1."""
    gold = [[tag for _, tag in s] for s in chinese[:300]]
    found = most_frequent(chinese[300:900], chinese[:300])
    cases = {
        (n, *span)
        for rows in (gold, found)
        for n, tags in enumerate(rows)
        for span in spans_by_regex(tags)
    }
    truth, guess = (
        [case[1:] in spans_by_regex(rows[case[0]]) for case in sorted(cases)]
        for rows in (gold, found)
    )
    assert name_f1(gold, found) == pytest.approx(100 * f1_score(truth, guess))
    assert 0 < name_f1(gold, found) < 100
    assert name_f1(gold, gold) == 100
    assert name_f1([["n"]], [["v"]]) == 0


def test_most_frequent_tag_by_hand():
    training = [[("a", "X"), ("a", "X"), ("b", "Y")], [("a", "Z"), ("c", "Y")]]
    assert most_frequent(training, [[("a", "?"), ("new", "?")]]) == [["X", "Y"]]


def test_linear_window_reads_the_neighbors():
    """A word whose tag depends on the word before it."""
    training = [[("p", "P"), ("w", "A")], [("q", "Q"), ("w", "B")]] * 20
    assert linear_window(training, training[:2]) == [["P", "A"], ["Q", "B"]]


def test_answers_leave_padding_out(documents):
    batches, number_of, tag_of = small(list(chain(*documents))[3:], count=20)
    model = Tagger(len(number_of) + 2, len(tag_of), "uniform")
    found = answers(model, batches, tag_of)
    assert [len(tags) for tags in found] == sorted(
        len(s) for s in list(chain(*documents))[3:23]
    )
    name = list(tag_of)
    first = model(batches[0][0])[0].argmax(1)[: len(found[0])]
    assert found[0] == [name[number] for number in first.tolist()]


@pytest.mark.parametrize("encoder", ["transformer", "relative"])
def test_profile_equals_a_naive_loop(encoder, documents):
    """Weights counted pair by pair; rows of weights sum to one."""
    batches, number_of, tag_of = small(list(chain(*documents)), count=8)
    model = Tagger(len(number_of) + 2, len(tag_of), encoder)
    total, count = {}, Counter()
    for feature_BT3, _ in batches:
        for row in feature_BT3:
            row = row[row[:, 0] != 0].unsqueeze(0)
            weight = model.encoder.weights(
                model.embedding(row).sum(2), row[:, :, 0] != 0
            )[0]
            assert torch.allclose(weight.sum(2), torch.ones(weight.shape[:2]))
            for t in range(row.shape[1]):
                for s in range(row.shape[1]):
                    total[s - t] = total.get(s - t, 0) + weight[:, t, s]
                    count[s - t] += 1
    expected = torch.stack([total[d] / count[d] for d in range(-2, 3)], dim=1)
    assert torch.allclose(profile(model, batches, 2), expected, atol=1e-6)


def test_compare_is_a_fair_race(documents, monkeypatch, capsys):
    """The same batches and epochs for every encoder; scored on the last part."""
    parts = [list(chain(*documents[:2])), list(chain(*documents[2:4]))]
    given_to = []
    monkeypatch.setattr(
        page, "train", lambda model, *rest: given_to.append(rest) or [1.0]
    )
    runs, score, unseen = page.compare(parts, 7, "en")
    assert list(runs) == list(ENCODERS)
    assert len(given_to) == 3 * len(ENCODERS)
    assert all(rest[0] is given_to[0][0] for rest in given_to)
    assert {rest[1] for rest in given_to} == {7}
    words = sum(int((x[:, :, 0] != 0).sum()) for x, _ in unseen)
    assert words == sum(map(len, parts[1]))
    model = runs["uniform"].models[0]
    assert runs["uniform"].scores[0] == score(model)
    assert "linear_window" in capsys.readouterr().out
