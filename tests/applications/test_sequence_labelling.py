"""The tagger, its data and its measures, and every fault of the seed's program."""

import hashlib
import inspect
import random
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from snippets.applications import sequence_labelling as page
from snippets.applications import sequence_labelling_seed as seed
from snippets.applications.package_data import package_file
from snippets.applications.sequence_labelling import (
    TAGS,
    Tagger,
    UniformAttention,
    accuracy,
    compare,
    contestants,
    make_batches,
    read_sentences,
    tags_of,
    train,
    weight_by_distance,
)
from snippets.foundations.additive import AdditiveAttention
from snippets.properties.error_budget import error_budget, largest_error
from tests.running import run_main
from tests.shape_names import lies_of


def test_padding_changes_nothing():
    """A sentence in a padded batch is scored as it is alone."""
    tagger = Tagger(50, 16, both_ways=True, mixer=AdditiveAttention(32, 32, 8))
    char_BT = torch.randint(2, 50, (4, 9))
    lengths = (9, 6, 3, 1)
    for row, length in enumerate(lengths):
        char_BT[row, length:] = 0
    batch_BT4, _ = tagger(char_BT)
    alone = [tagger(char_BT[b : b + 1, :n])[0][0] for b, n in enumerate(lengths)]
    tagger.double()
    for row, length in enumerate(lengths):
        exact_T4 = tagger(char_BT[row : row + 1, :length])[0][0]
        error = largest_error(batch_BT4[row, :length], exact_T4)
        allowed = error_budget(alone[row], exact_T4, factor=2)
        assert error <= allowed


@pytest.fixture(scope="module")
def sentences():
    """Return all sentences of the corpus, read once."""
    return read_sentences(package_file(page.PACKAGE, "tag/199801.txt", page.DIGEST))


def small(sentences, count=64):
    """Return batches of a few sentences and the size of their alphabet."""
    characters = sorted({c for words in sentences[:count] for w in words for c in w})
    number_of = {c: n for n, c in enumerate(characters, 2)}
    return make_batches(sentences[:count], number_of, 16), len(characters) + 2


# ---- the seed's program ----


def test_exhibit_is_verbatim():
    """The class on show is the seed's, to the letter (but for trailing spaces)."""
    source = inspect.getsource(seed.Attention).strip()
    digest = hashlib.sha256(source.encode()).hexdigest()
    assert digest == "6f9c96b92be32ba2a2cf5c458ec5873c836b29aaacc4d7cdcc34e9a0a3f79a89"


def seed_inputs(S=5, B=2, D=4):
    return torch.randn(B, D), torch.randn(S, B, D)


def test_seed_as_given_cannot_concatenate():
    """Fault 1: (B, 1, D) and (S, B, D) do not fit."""
    assert not hasattr(seed, "F"), "nothing may import F for the seed's class"
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        seed.Attention(4)(*seed_inputs())


def test_seed_then_lacks_an_import():
    """Fault 2: F was never imported."""
    with pytest.raises(NameError, match="name 'F' is not defined"):
        seed.QueryEverywhere(4)(*seed_inputs())


def test_seed_then_has_an_axis_too_many(monkeypatch):
    """Fault 3: the energy has a last axis of 1 already."""
    monkeypatch.setattr(seed, "F", F, raising=False)
    attention = seed.QueryEverywhere(4)
    assert attention.score(*seed_inputs()).shape == (5, 2, 1)
    with pytest.raises(RuntimeError, match="batch1 must be a 3D tensor"):
        attention(*seed_inputs())


def test_seed_then_multiplies_the_wrong_layout():
    """Fault 5: weights (B, 1, S) against outputs (S, B, D)."""
    hidden, outputs = seed_inputs()
    energy = seed.QueryEverywhere(4).score(hidden, outputs).squeeze(2)
    with pytest.raises(RuntimeError, match="Expected size for first two dimensions"):
        torch.bmm(F.softmax(energy, dim=0).T.unsqueeze(1), outputs)


def test_seed_softmax_over_the_batch_mixes_sentences():
    """Fault 4: without an error, one sentence changes the other's weights."""
    hidden, outputs = seed_inputs()
    attention = seed.QueryEverywhere(4)
    other = outputs.clone()
    other[:, 1] = torch.randn(5, 4)
    weights = [
        [F.softmax(attention.score(hidden, x).squeeze(2), dim=d)[:, 0] for d in (1, 0)]
        for x in (outputs, other)
    ]
    assert not torch.allclose(weights[0][0], weights[1][0])
    assert weights[0][1].equal(weights[1][1])


def test_seed_demonstration():
    """The whole file runs and prints what the page quotes."""
    result = run_main("snippets.applications.sequence_labelling_seed")
    names = result.names
    assert names["mixed_SD"].shape == (5, 4)
    assert names["context_BD"].shape == (2, 4)
    assert torch.allclose(names["wrong_SB"].sum(1), torch.ones(5))
    assert not torch.allclose(names["wrong_SB"].sum(0), torch.ones(2))
    assert names["lost"] == 4
    assert "weight on the 2 padded positions 0.366" in result.output
    assert not lies_of(
        {k: v for k, v in names.items() if not k.startswith("__") and k != "F"}
    )


# ---- the data ----


def test_sentences_are_distinct_and_within_length(sentences):
    """No text twice, 5 to 24 characters, an end mark nowhere but at the end."""
    texts = ["".join(words) for words in sentences]
    assert len(texts) == len(set(texts)) == 12672
    assert {len(text) for text in texts} == set(range(5, 25))
    assert not any(mark in text[:-1] for text in texts for mark in "。！？")
    assert all(all(words) for words in sentences)


def test_reading_cuts_at_ends_and_keeps_the_first(tmp_path):
    """A line may hold several sentences; repeated and short ones are dropped."""
    path = tmp_path / "x.txt"
    path.write_text(
        "甲乙/n  丙丁/n  。/w  短/a  。/w  一二三/m  四/m  五/m\n\n甲乙/n  丙/n  丁/n  。/w\n",
        "utf-8",
    )
    expected = [["甲乙", "丙丁", "。"], ["一二三", "四", "五"]]
    assert read_sentences(path) == expected
    assert read_sentences(path, longest=4) == []


def test_split_does_not_leak(sentences):
    """No test sentence is in the training part, nor any training line in the test."""
    seen = {"".join(words) for words in sentences[:10000]}
    unseen = {"".join(words) for words in sentences[-1500:]}
    assert len(seen) == 10000
    assert len(unseen) == 1500
    assert not seen & unseen


@given(st.lists(st.text("甲乙丙丁", min_size=1, max_size=6), min_size=1, max_size=8))
def test_tags_give_the_words_back(words):
    """The tags hold exactly the cuts."""
    found = []
    for character, tag in zip("".join(words), tags_of(words), strict=True):
        if tag in "BS":
            found.append(character)
        else:
            found[-1] += character
    assert found == words
    assert all((tag == "S") == (len(w) == 1) for w in words for tag in tags_of([w]))
    assert all(tags_of([w])[-1] in "ES" for w in words)


def test_batches_hold_every_sentence_once(sentences):
    """Nothing is lost or doubled, padding is 0, unknown characters are 1."""
    part = sentences[:50]
    number_of = {c: n for n, c in enumerate("的一是在", 2)}
    back = {n: c for c, n in number_of.items()}
    found = []
    for char_BT, tag_BT in make_batches(part, number_of, 16):
        assert char_BT.shape == tag_BT.shape
        for chars, tags in zip(char_BT.tolist(), tag_BT.tolist(), strict=True):
            n = sum(c != 0 for c in chars)
            assert not any(chars[n:])
            text = "".join(back.get(c, "?") for c in chars[:n])
            found.append((text, "".join(TAGS[t] for t in tags[:n])))
    expected = [
        (
            "".join(c if c in number_of else "?" for w in words for c in w),
            tags_of(words),
        )
        for words in part
    ]
    assert sorted(found) == sorted(expected)


# ---- the model ----


@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize("context", ["none", "mean", "attention"])
def test_shapes(both_ways, context):
    """Scores for each character, weights from each character to each."""
    size = 16 * (1 + both_ways)
    mixer = {
        "none": None,
        "mean": UniformAttention(),
        "attention": AdditiveAttention(size, size, 8),
    }[context]
    char_BT = torch.randint(2, 30, (3, 7))
    char_BT[2, 4:] = 0
    logit_BT4, weight_BTS = Tagger(30, 16, both_ways, mixer)(char_BT)
    assert logit_BT4.shape == (3, 7, 4)
    if context == "none":
        assert weight_BTS is None
        return
    assert weight_BTS.shape == (3, 7, 7)
    assert torch.allclose(weight_BTS.sum(-1), torch.ones(3, 7))
    assert (weight_BTS[2, :, 4:] == 0).all()


@given(length=st.integers(1, 8), extra=st.integers(0, 5))
def test_more_padding_changes_nothing(length, extra):
    """However much padding follows, the scores stay."""
    tagger = Tagger(30, 8, both_ways=True, mixer=AdditiveAttention(16, 16, 8))
    char_1T = torch.randint(2, 30, (1, length))
    short = tagger(char_1T)[0]
    long = tagger(F.pad(char_1T, (0, extra)))[0][:, :length]
    exact = tagger.double()(char_1T)[0]
    assert largest_error(long, exact) <= error_budget(short, exact, 2)


def test_attention_is_used():
    """Equal weights in place of learned ones change the scores."""
    tagger = Tagger(30, 16, both_ways=True, mixer=AdditiveAttention(32, 32, 8))
    with torch.no_grad():
        tagger.mixer.energy.weight.mul_(20)
    char_BT = torch.randint(2, 30, (2, 6))
    with_weights = tagger(char_BT)[0]
    tagger.mixer = UniformAttention()
    assert (with_weights - tagger(char_BT)[0]).abs().max() > 1e-3


def test_each_position_asks_its_own_question():
    """The weights of two positions of one sentence differ (the seed gave one vector)."""
    tagger = Tagger(30, 16, both_ways=True, mixer=AdditiveAttention(32, 32, 8))
    weight_BTS = tagger(torch.randint(2, 30, (1, 6)))[1]
    assert not torch.allclose(weight_BTS[0, 0], weight_BTS[0, 1])


def test_one_way_encoder_sees_the_right_side_only_through_attention():
    """The last character reaches the first through the attention alone."""
    char_1T = torch.randint(2, 30, (1, 6))
    other_1T = char_1T.clone()
    other_1T[0, -1] = 2 if char_1T[0, -1] != 2 else 3
    for mixer, changes in ((None, False), (AdditiveAttention(16, 16, 8), True)):
        tagger = Tagger(30, 16, both_ways=False, mixer=mixer)
        same = tagger(char_1T)[0][0, 0].equal(tagger(other_1T)[0][0, 0])
        assert same is not changes


def test_uniform_attention_is_the_mean_of_what_is_seen():
    """The control is a plain mean over real positions."""
    value = torch.randn(2, 5, 3)
    mask = (torch.arange(5) < torch.tensor([[5], [2]])).unsqueeze(1).expand(-1, 4, -1)
    out, weight = UniformAttention()(value[:, :4], value, value, mask)
    assert torch.allclose(out[0], value[0].mean(0).expand(4, -1))
    assert torch.allclose(out[1], value[1, :2].mean(0).expand(4, -1))
    assert (weight[1, :, 2:] == 0).all()


@pytest.mark.parametrize("row", [[0, 0, 0], [0, 5, 6], [5, 0, 6]])
def test_padding_elsewhere_is_refused(row):
    """Left padding, a hole and an empty row raise instead of being misread."""
    tagger = Tagger(30, 8, both_ways=True, mixer=None)
    with pytest.raises(ValueError, match="expected padding at the end of rows only"):
        tagger(torch.tensor([[2, 3, 4], row]))


def test_gradients_reach_every_parameter_and_not_the_padding():
    """All parts learn; the embedding of padding does not."""
    tagger = Tagger(30, 8, both_ways=True, mixer=AdditiveAttention(16, 16, 8))
    tagger(torch.tensor([[2, 3, 4], [5, 6, 0]]))[0].sum().backward()
    grads = {name: p.grad for name, p in tagger.named_parameters()}
    assert all(g is not None and g.isfinite().all() for g in grads.values())
    assert (grads["embedding.weight"][0] == 0).all()
    assert (grads["mixer.energy.weight"] != 0).any()


def test_accuracy_equals_a_naive_loop(sentences):
    """Counted one real character at a time."""
    batches, size = small(sentences)
    tagger = Tagger(size, 8, both_ways=True, mixer=None)
    hits = []
    for char_BT, tag_BT in batches:
        logit = tagger(char_BT)[0]
        for b in range(char_BT.shape[0]):
            for t in range(char_BT.shape[1]):
                if char_BT[b, t] != 0:
                    hits.append(logit[b, t].argmax() == tag_BT[b, t])
    assert any(hits)
    assert not all(hits)
    assert accuracy(tagger, batches) == sum(map(int, hits)) / len(hits)


def test_accuracy_leaves_padding_out():
    """A model that is right on padding only is right nowhere."""

    class Begin(torch.nn.Module):
        def forward(self, char_BT):
            return torch.eye(4)[torch.zeros_like(char_BT)], None

    char_BT = torch.tensor([[2, 3, 0, 0]])
    assert accuracy(Begin(), [(char_BT, torch.tensor([[1, 1, 0, 0]]))]) == 0
    assert accuracy(Begin(), [(char_BT, torch.tensor([[0, 1, 1, 1]]))]) == 0.5


def test_loss_goes_down_and_beats_the_baseline(sentences):
    """A few passes over a few sentences teach more than the most frequent tag."""
    batches, size = small(sentences)
    tagger = Tagger(size, 16, both_ways=True, mixer=AdditiveAttention(32, 32, 8))
    losses = train(tagger, batches, epochs=25)
    assert len(losses) == 25 * len(batches)
    assert sum(losses[-4:]) < 0.2 * sum(losses[:4])
    count = {}
    for words in sentences[:64]:
        for character, tag in zip("".join(words), tags_of(words), strict=True):
            count.setdefault(character, Counter())[tag] += 1
    right = sum(max(tags.values()) for tags in count.values())
    assert accuracy(tagger, batches) > right / sum(map(Counter.total, count.values()))


def test_training_ignores_the_tags_of_padding(sentences):
    """What stands in the padding of the tags changes no step."""
    batches, size = small(sentences, count=16)
    spoiled = [(c, t.masked_fill(c == 0, 3)) for c, t in batches]
    losses = []
    for data in (batches, spoiled):
        torch.manual_seed(0)
        losses.append(train(Tagger(size, 8, True, None), data, epochs=2))
    assert any((c == 0).any() for c, _ in batches)
    assert losses[0] == losses[1]


def test_weight_by_distance_equals_a_naive_loop(sentences):
    """The diagonals of the weights, counted pair by pair."""
    batches, size = small(sentences, count=8)
    tagger = Tagger(size, 8, both_ways=True, mixer=AdditiveAttention(16, 16, 8))
    total, count = {}, {}
    for char_BT, _ in batches:
        weight = tagger(char_BT)[1]
        for b, length in enumerate((char_BT != 0).sum(1).tolist()):
            for t in range(length):
                for s in range(length):
                    total[s - t] = total.get(s - t, 0) + weight[b, t, s].item()
                    count[s - t] = count.get(s - t, 0) + 1
    expected = torch.tensor([total[d] / count[d] for d in range(-3, 4)])
    found = torch.tensor(weight_by_distance(tagger, batches, 3))
    assert largest_error(found, expected.double()) <= error_budget(
        expected, expected.double(), 2
    )


def test_random_order_of_a_batch_does_not_matter(sentences):
    """Rows do not see each other."""
    batches, size = small(sentences, count=8)
    tagger = Tagger(size, 8, True, AdditiveAttention(16, 16, 8)).double()
    char_BT, _ = batches[0]
    order = list(range(len(char_BT)))
    random.Random(1).shuffle(order)
    straight, shuffled = tagger(char_BT)[0], tagger(char_BT[order])[0]
    assert largest_error(shuffled, straight[order]) <= error_budget(straight, straight)


@pytest.mark.parametrize("both_ways", [True, False])
def test_the_race_is_fair(both_ways):
    """Three contestants close in parameters, each with the context it is named for."""
    taggers = {name: make() for name, make in contestants(both_ways, 3000).items()}
    assert list(taggers) == ["none", "mean", "attention"]
    counts = [sum(map(torch.numel, t.parameters())) for t in taggers.values()]
    assert max(counts) < 1.01 * min(counts)
    assert taggers["none"].mixer is None
    assert isinstance(taggers["mean"].mixer, UniformAttention)
    assert isinstance(taggers["attention"].mixer, AdditiveAttention)
    assert all(t.lstm.bidirectional is both_ways for t in taggers.values())


def test_compare_scores_percent_on_the_test_part(sentences):
    """Each of the nine runs takes two passes; its score is its own accuracy."""
    batches, _ = small(sentences, count=16)
    results = compare(True, 3000, batches, batches[:1])
    for runs in results.values():
        assert [len(losses) for losses in runs.losses] == [2 * len(batches)] * 3
        expected = [100 * accuracy(model, batches[:1]) for model in runs.models]
        assert runs.scores == pytest.approx(expected)
