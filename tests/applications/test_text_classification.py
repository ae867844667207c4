"""The reviews and their split, the classifier and its measures."""

import random
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau
from sklearn.metrics import accuracy_score

from snippets.applications import text_classification as page
from snippets.applications.text_classification import (
    Classifier,
    accuracy,
    agreement,
    compare,
    distinct,
    heaviest,
    key,
    linear_model,
    make_batches,
    movie_sentences,
    removal,
    shop_reviews,
    split,
    tokens,
    train,
)
from snippets.properties.error_budget import error_budget, largest_error

KINDS = [(False, False), (True, False), (True, True)]


@pytest.fixture(scope="module")
def movies():
    return movie_sentences()


@pytest.fixture(scope="module")
def reviews():
    return shop_reviews()


def small(rows, count=200):
    """Return batches of a few texts, and the numbers of their tokens."""
    rows = rows[:count]
    names = sorted({token for text, _ in rows for token in tokens(text)})
    number_of = {token: number for number, token in enumerate(names)}
    return make_batches(rows, number_of), number_of


# ---- the data ----


def test_counts_of_the_movie_sentences(movies):
    assert len(movies) == 10072
    assert Counter(label for _, label in movies) == {0: 5076, 1: 4996}
    assert len(distinct(movies)) == 10006


def test_half_of_the_reviews_are_repeated_and_47_have_both_labels(reviews):
    """What the page prints, counted here another way."""
    assert Counter(label for _, label in reviews) == {0: 18575, 1: 16548}
    praise = {text for text, label in reviews if label}
    blame = {text for text, label in reviews if not label}
    assert (len(praise), len(blame)) == (8379, 9078)
    assert len(praise & blame) == 47
    kept = {text for text, _ in distinct(reviews)}
    assert not kept & praise & blame


def test_one_row_a_key_and_none_with_both_labels():
    rows = [
        ("Good!", 1),
        ("good", 1),
        ("bad", 0),
        ("so so", 1),
        ("So, so", 0),
        ("…", 1),
    ]
    assert distinct(rows) == [("Good!", 1), ("bad", 0)]
    long = "一二三四五六七八九十甲乙丙丁戊己庚辛壬癸"
    assert distinct([(long + "好", 1), (long + "坏", 1)]) == [(long + "好", 1)]


@pytest.mark.parametrize("name", ["movies", "reviews"])
def test_split_does_not_leak(name, request):
    """Every kept text is in exactly one part, and no key in two."""
    rows = distinct(request.getfixturevalue(name))
    parts = split(rows)
    assert sorted(row for part in parts for row in part) == sorted(rows)
    keys = [{key(text) for text, _ in part} for part in parts]
    assert sum(map(len, keys)) == len(set().union(*keys)) == len(rows)
    for part, share in zip(parts, (0.8, 0.1, 0.1), strict=True):
        assert len(part) == pytest.approx(share * len(rows), abs=1)
    assert split(rows) == parts


def test_tokens_are_words_characters_and_pairs():
    assert tokens("It's so-so: 好 片") == [
        *("it's", "so", "-", "so", ":", "好", "片"),
        *("it's so", "so -", "- so", "so :", ": 好", "好 片"),
    ]
    assert tokens("a") == ["a"]
    assert len(tokens("好" * 300)) == 199


def test_batches_hold_every_text_once(movies):
    rows = movies[:70]
    batches, number_of = small(rows, count=50)
    back = {number + 2: token for token, number in number_of.items()}
    batches = make_batches(rows, number_of, size=16)
    found = []
    for token_BS, label_B in batches:
        for row, label in zip(token_BS.tolist(), label_B.tolist(), strict=True):
            length = len(row) - row.count(0)
            assert not any(row[length:])
            found.append(([back.get(n, "?") for n in row[:length]], label))
    expected = [
        ([token if token in number_of else "?" for token in tokens(text)], label)
        for text, label in rows
    ]
    assert sorted(found) == sorted(expected)
    assert any("?" in row for row, _ in found)


# ---- the model ----


@pytest.mark.parametrize(("attention", "block"), KINDS)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), extra=st.integers(0, 3)
)
def test_weights_sum_to_one_and_padding_changes_nothing(
    attention, block, lengths, extra
):
    model = Classifier(20, 8, attention, block).double()
    rows = [torch.randint(1, 20, (length,)) for length in lengths]
    token_BS = torch.stack([F.pad(r, (0, max(lengths) + extra - len(r))) for r in rows])
    score_B, weight_BS = model(token_BS)
    assert score_B.shape == (len(rows),)
    assert weight_BS.shape == token_BS.shape
    assert (weight_BS[token_BS == 0] == 0).all()
    assert torch.allclose(weight_BS.sum(1), torch.ones(len(rows)).double())
    alone_B = torch.cat([model(row.unsqueeze(0))[0] for row in rows])
    assert largest_error(score_B, alone_B) <= 4 * error_budget(alone_B, alone_B)


def test_the_mean_is_a_mean():
    model = Classifier(20, 8, attention=False)
    score_B, _ = model(torch.tensor([[3, 4, 5, 0, 0], [6, 7, 8, 9, 10]]))
    mean_D = model.embedding.weight[3:6].mean(0)
    assert torch.allclose(score_B[0], model.head(mean_D)[0], atol=1e-6)


def test_attention_is_used():
    """Equal weights in its place change the score."""
    model = Classifier(20, 8, attention=True)
    with torch.no_grad():
        model.attention.energy.weight.mul_(20)
        model.embedding.weight.mul_(10)
    token_BS = torch.randint(1, 20, (3, 6))
    learned_B = model(token_BS)[0]
    model.attention = None
    assert (learned_B - model(token_BS)[0]).abs().min() > 1e-4


@pytest.mark.parametrize("block", [False, True])
def test_without_a_block_the_order_of_weights_ignores_the_context(block):
    """The score of a token is its own: ratios of weights stay when others come."""
    torch.manual_seed(0)
    model = Classifier(20, 8, True, block).double()
    with torch.no_grad():
        model.embedding.weight.normal_()
    short_2 = model(torch.tensor([[3, 4]]))[1][0]
    long_4 = model(torch.tensor([[3, 4, 5, 6]]))[1][0]
    same = torch.allclose(short_2[0] / short_2[1], long_4[0] / long_4[1])
    assert same is not block


def test_the_query_is_a_constant():
    """One query for all texts: moving it into the bias of the key changes nothing."""
    model = Classifier(20, 8, attention=True).double()
    token_BS = torch.randint(1, 20, (3, 6))
    before_B = model(token_BS)[0]
    with torch.no_grad():
        model.attention.key.bias += model.attention.query(model.query_11D)[0, 0]
        model.query_11D.zero_()
    after_B = model(token_BS)[0]
    assert largest_error(after_B, before_B) <= 4 * error_budget(before_B, before_B)


def test_parameters_are_close():
    counts = [
        sum(p.numel() for p in Classifier(15000, 16, *kind).parameters())
        for kind in KINDS
    ]
    assert max(counts) < 1.02 * min(counts)


@pytest.mark.parametrize(("attention", "block"), KINDS)
def test_loss_goes_down_and_the_best_epoch_is_kept(
    attention, block, movies, monkeypatch
):
    batches, number_of = small(movies)
    model = Classifier(len(number_of) + 2, 16, attention, block)
    seen = []

    def watched(model, part):
        seen.append((accuracy(model, part), model.head.bias.item()))
        return seen[-1][0]

    monkeypatch.setattr(page, "accuracy", watched)
    losses = train(model, batches, batches[:1], epochs=20)
    assert len(losses) == 20 * len(batches)
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
    best = max(value for value, _ in seen)
    assert (accuracy(model, batches[:1]), model.head.bias.item()) == next(
        entry for entry in seen if entry[0] == best
    )


def test_accuracy_is_that_of_sklearn(movies):
    batches, number_of = small(movies)
    model = Classifier(len(number_of) + 2, 8, attention=True)
    guess = [int(score > 0) for x, _ in batches for score in model(x)[0].tolist()]
    truth = [int(label) for _, y in batches for label in y.tolist()]
    assert accuracy(model, batches) == pytest.approx(100 * accuracy_score(truth, guess))


# ---- removal ----


@pytest.mark.parametrize("block", [False, True])
def test_removal_equals_reading_each_shorter_text(block):
    model = Classifier(20, 8, True, block).double()
    row = [3, 9, 4, 4, 7]
    weight_S, change_S = removal(model, torch.tensor(row))
    whole, weights = model(torch.tensor([row]))
    for place in range(len(row)):
        short = model(torch.tensor([row[:place] + row[place + 1 :]]))[0]
        assert change_S[place].item() == pytest.approx((short - whole).abs().item())
    assert torch.equal(weight_S, weights[0])


def test_without_a_block_removal_has_a_closed_form():
    """The change is α / (1 - α) times the distance of the token's own score."""
    model = Classifier(50, 8, attention=True).double()
    token_S = torch.randint(2, 50, (12,))
    weight_S, change_S = removal(model, token_S)
    own_S = model.head(model.embedding(token_S)).flatten()
    score_1, _ = model(token_S.unsqueeze(0))
    expected_S = weight_S / (1 - weight_S) * (own_S - score_1).abs()
    assert torch.allclose(change_S, expected_S)


def test_agreement_equals_a_naive_loop(movies):
    batches, number_of = small(movies)
    model = Classifier(len(number_of) + 2, 8, attention=True)
    tau, same, pair_N2 = agreement(model, batches)
    rows = [row[row != 0] for x, _ in batches for row in x][::10]
    found = [removal(model, row) for row in rows if len(row) > 2]
    taus = [kendalltau(*(each.tolist() for each in pair)).statistic for pair in found]
    assert tau == pytest.approx(sum(taus) / len(taus))
    first = [w.tolist().index(w.max()) == c.tolist().index(c.max()) for w, c in found]
    assert same == sum(first) / len(first)
    assert pair_N2.shape == (sum(len(w) for w, _ in found), 2)


def test_heaviest_tokens_of_a_mean_are_even(movies):
    """Equal weights are once 1/S everywhere; rare and unknown tokens are left out."""
    batches, number_of = small(movies)
    model = Classifier(len(number_of) + 2, 8, attention=False)
    found = heaviest(model, batches, number_of)
    assert len(found) == 8
    count = Counter(token for text, _ in movies[:200] for token in tokens(text))
    for line in found:
        name, _, times = line.rpartition(" ")
        assert times == "1×"
        assert count[name] >= 10


# ---- the comparison ----


def test_the_vocabulary_is_that_of_the_training_part(movies):
    rows = random.Random(1).sample(movies, 600)
    parts = [rows[:400], rows[400:500], rows[500:]]
    number_of, score = linear_model(parts)
    count = Counter(token for text, _ in parts[0] for token in set(tokens(text)))
    assert set(number_of) == {token for token, n in count.items() if n >= 3}
    assert sorted(number_of.values()) == list(range(len(number_of)))
    assert 45 < score < 85


def test_compare_is_a_fair_race(movies, monkeypatch, capsys):
    """The same parts, epochs and seeds for every contestant."""
    rows = random.Random(1).sample(movies, 300)
    given_to = []
    monkeypatch.setattr(page, "linear_model", lambda parts: ({"the": 0, "a": 1}, 99.0))
    monkeypatch.setattr(page, "accuracy", lambda model, part: 50.0)
    monkeypatch.setattr(
        page, "train", lambda model, *rest: given_to.append(rest) or [1.0]
    )
    runs, test, _ = compare(
        [rows[:200], rows[200:250], rows[250:]], 2, "en", block=True
    )
    assert list(runs) == ["mean", "attention", "block + attention"]
    assert len(given_to) == 9
    assert all(rest[0] is given_to[0][0] for rest in given_to)
    assert all(rest[1] is given_to[0][1] for rest in given_to)
    assert {rest[2] for rest in given_to} == {2}
    assert sum(len(y) for _, y in test) == 50
    assert "99.0" in capsys.readouterr().out
