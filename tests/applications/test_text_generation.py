"""The writers, the counts, the cache and the ways to choose the next character."""

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from snippets.applications import text_generation as page
from snippets.applications.blocks import UniformMixing
from snippets.applications.text_generation import (
    SPAN,
    Recurrent,
    Writer,
    chances,
    encode,
    flatten,
    generate,
    look,
    nats,
    ngram_nats,
    read_plays,
    read_sentences,
    repeated,
    split,
    step_cost,
    train,
    windows,
    words_of,
)
from snippets.decoding.kv_cache import cache_bytes, causal_mask
from snippets.properties.error_budget import error_budget, largest_error
from snippets.transformer.multi_head import merge_heads, split_heads

KINDS = {
    "attention": lambda: Writer(20),
    "mean": lambda: Writer(20, UniformMixing, widen=5),
    "GRU": lambda: Recurrent(20, 24),
}


# ---- the data ----


def test_plays_are_whole_and_plain():
    """38 plays, none twice, Markdown's bold and line breaks gone."""
    plays = read_plays()
    assert len(plays) == len(set(plays)) == 38
    assert sum(map(len, plays)) > 4_900_000
    assert not any("**" in play or " \n" in play for play in plays)


def test_sentences_are_distinct_and_simplified():
    """No two with the same words; traditional characters are gone."""
    sentences = read_sentences()
    words = [words_of(sentence) for sentence in sentences]
    assert len(sentences) == 50_311
    assert len(set(words)) == len(words)
    assert not set("們試這個說國") & set("".join(sentences))


@given(count=st.integers(10, 200))
def test_split_takes_each_piece_once(count):
    """Three parts, disjoint and complete, the same each time."""
    pieces = [str(i) for i in range(count)]
    parts = split(pieces)
    assert sorted([*parts[0], *parts[1], *parts[2]]) == sorted(pieces)
    assert len(parts[1]) == len(parts[2]) == count // 10
    assert parts == split(pieces)
    assert pieces == [str(i) for i in range(count)]


def test_numbers_give_the_text_back():
    """Encoding loses nothing."""
    alphabet, numbers = encode(["to be", "或 not"])
    assert alphabet == sorted(set("to be或 not"))
    assert ["".join(alphabet[i] for i in n) for n in numbers] == ["to be", "或 not"]


@given(length=st.integers(SPAN + 1, 3000), most=st.integers(1, 50))
def test_windows_are_pieces_of_the_text(length, most):
    """At most so many, each SPAN + 1 in a row, the first at the start."""
    text_N = torch.arange(length)
    found = windows(text_N, most)
    assert 1 <= len(found) <= most
    assert (found.diff(dim=1) == 1).all()
    assert (found[:, 0] % (SPAN // 2) == 0).all()
    assert found[0, 0] == 0


# ---- the networks ----


@pytest.mark.parametrize("kind", KINDS)
@given(B=st.integers(1, 3), T=st.integers(1, 12))
def test_shapes(kind, B, T):
    """A score for each character after each character."""
    assert KINDS[kind]()(torch.randint(20, (B, T))).shape == (B, T, 20)


@pytest.mark.parametrize("kind", KINDS)
def test_the_future_changes_nothing(kind):
    """No writer sees what it has to predict."""
    model, char_BT = KINDS[kind](), torch.randint(20, (2, 9))
    other_BT = char_BT.clone()
    other_BT[:, 5:] = (other_BT[:, 5:] + 1) % 20
    before, after = model(char_BT), model(other_BT)
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert not torch.allclose(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("kind", KINDS)
def test_the_past_is_used(kind):
    """The first character reaches the last score."""
    model, char_BT = KINDS[kind](), torch.randint(1, 20, (1, 9))
    other_BT = char_BT.clone()
    other_BT[0, 0] = 0
    assert not torch.allclose(model(char_BT)[0, -1], model(other_BT)[0, -1])


@pytest.mark.parametrize(("A", "hidden"), [(84, 146), (601, 120)])
def test_the_race_is_fair(A, hidden):
    """The three have the same number of parameters within 2 %."""
    models = (Writer(A), Writer(A, UniformMixing, widen=5), Recurrent(A, hidden))
    counts = [sum(map(torch.numel, model.parameters())) for model in models]
    assert max(counts) < 1.02 * min(counts)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_goes_down(kind, monkeypatch):
    """A periodic text is learned far below the loss of guessing."""
    monkeypatch.setattr(page, "schedule", lambda cpu, gpu: 40)
    text_N = torch.arange(400) % 20
    model = KINDS[kind]()
    losses = train(model, text_N)
    assert len(losses) == 40
    assert losses[0] > 2
    assert nats(model, windows(text_N)) < 0.5


def test_nats_is_the_mean_over_the_second_halves():
    """Counted one character at a time."""
    model, char_BT = Writer(20), torch.randint(20, (3, SPAN + 1))
    total = 0.0
    with torch.no_grad():
        for row in char_BT:
            chance = model(row[None, :-1])[0].softmax(1)
            for t in range(SPAN // 2, SPAN):
                total -= math.log(chance[t, row[t + 1]])
    assert nats(model, char_BT) == pytest.approx(total / 3 / (SPAN // 2), rel=1e-5)


# ---- the counts ----


def smoothed(text, past, c, A):
    """Return p(c | past) by the recursion, from counts of strings."""
    shorter = smoothed(text, past[1:], c, A) if past else 1 / A
    n = len(past)
    after = Counter(
        text[i + n] for i in range(len(text) - n) if text[i : i + n] == past
    )
    if not after:
        return shorter
    return (after[c] + len(after) * shorter) / (after.total() + len(after))


def test_counts_equal_the_recursion():
    """Integer codes and sorted tables against strings and a Counter."""
    text = torch.randint(4, (60,)).tolist()
    char_BT = torch.randint(4, (2, SPAN + 1))
    char_BT[0, 0] = 3
    found = ngram_nats(torch.tensor(text), char_BT, orders=4)
    for n, value in enumerate(found, 1):
        logs = [
            math.log(smoothed(text, row[t - n + 1 : t], row[t], 4))
            for row in char_BT.tolist()
            for t in range(SPAN // 2 + 1, SPAN + 1)
        ]
        assert value == pytest.approx(-sum(logs) / len(logs), rel=1e-9)


def test_smoothed_chances_sum_to_one():
    """Over all next characters, seen or not, for a known and an unknown past."""
    for past in ([0, 1], [3, 3], []):
        total = sum(smoothed([0, 1, 2, 0, 1, 1], past, c, 4) for c in range(4))
        assert total == pytest.approx(1)


# ---- the next character ----


@given(
    logits=st.lists(st.floats(-5, 5), min_size=3, max_size=12),
    temperature=st.floats(0.2, 3),
    top_p=st.floats(0.05, 1),
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits, temperature, top_p):
    """The set reaches p; without its least member it would not; ratios stay."""
    logit_1A = torch.tensor([logits], dtype=torch.float64)
    whole = (logit_1A / temperature).softmax(1)[0]
    found = chances(logit_1A, temperature, top_p=top_p)[0]
    kept = found > 0
    assert found.sum().item() == pytest.approx(1)
    assert whole[kept].sum() >= top_p - 1e-9
    assert whole[kept].sum() - whole[kept].min() < top_p
    assert whole[kept].min() >= whole[~kept].max() if (~kept).any() else True
    assert torch.allclose(found[kept], whole[kept] / whole[kept].sum())


@given(k=st.integers(1, 8))
def test_top_k_keeps_k(k):
    """The k best, in their old proportions."""
    logit_BA = torch.randn(3, 8)
    found, whole = chances(logit_BA, top_k=k), logit_BA.softmax(1)
    best = whole.topk(k).indices
    assert ((found > 0).sum(1) == k).all()
    assert torch.allclose(found.sum(1), torch.ones(3))
    expected = whole.gather(1, best) / whole.gather(1, best).sum(1, keepdim=True)
    assert torch.allclose(found.gather(1, best), expected)


def test_temperature_goes_from_greedy_to_uniform():
    """0 is the best alone, a small one nearly, 1 is softmax, a large one is flat."""
    logit_BA = torch.randn(4, 9).argsort(1).float()
    best = F.one_hot(logit_BA.argmax(1), 9).float()
    assert chances(logit_BA, 0).equal(best)
    assert torch.allclose(chances(logit_BA, 0.01), best)
    assert torch.allclose(chances(logit_BA), logit_BA.softmax(1))
    assert torch.allclose(chances(logit_BA, 1e6), torch.full((4, 9), 1 / 9), rtol=1e-4)


@pytest.mark.parametrize(
    "how",
    [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}],
)
def test_options_out_of_range_are_refused(how):
    """One sentence that names what came."""
    with pytest.raises(
        ValueError, match=f"{next(iter(how))} {next(iter(how.values()))}"
    ):
        chances(torch.zeros(1, 3), **how)


def test_repeated_counts_what_stood_before():
    """A loop of two characters, and a text without any."""
    assert repeated("ababab", n=2) == 1 - 2 / 5
    assert repeated("abcdef", n=2) == 0


# ---- the cache ----


@given(T=st.integers(1, 9), B=st.integers(1, 3))
def test_cached_steps_score_as_one_pass(T, B):
    """Each step's scores equal those of the whole text without a cache."""
    model, char_BT = Writer(20).double(), torch.randint(20, (B, T))
    with torch.no_grad():
        whole = model(char_BT)
        page.set_caches(model, B, T)
        for block in model.blocks:
            for name in ("k_BHSK", "v_BHSV"):
                setattr(block.mix.cache, name, getattr(block.mix.cache, name).double())
        steps = torch.cat([model(char_BT[:, t : t + 1]) for t in range(T)], dim=1)
    assert largest_error(steps, whole) <= 4 * error_budget(whole, whole)


def test_greedy_is_the_same_with_and_without_a_cache():
    """Character by character, and again: no state is left behind."""
    model, start_BT = Writer(20), torch.randint(20, (3, 5))
    texts = [generate(model, start_BT, 30, c, temperature=0) for c in (1, 0, 1)]
    assert texts[0].shape == (3, 35)
    assert texts[0][:, :5].equal(start_BT)
    assert texts[0].equal(texts[1])
    assert texts[0].equal(texts[2])
    assert all(block.mix.cache is None for block in model.blocks)


def test_drawing_is_the_same_with_and_without_a_cache():
    """The same seed draws the same text."""
    model, start_BT = Writer(20), torch.randint(20, (2, 3))
    texts = []
    for cached in (True, False):
        torch.manual_seed(1)
        texts.append(generate(model, start_BT, 20, cached, top_p=0.9))
    assert texts[0].equal(texts[1])


def test_bytes_of_a_cache():
    """What is allocated is what the formula of the KV-cache page says."""
    model = Writer(20)
    page.set_caches(model, 3, 50)
    held = sum(
        part.untyped_storage().nbytes()
        for block in model.blocks
        for part in (block.mix.cache.k_BHSK, block.mix.cache.v_BHSV)
    )
    assert held == 3 * 50 * cache_bytes(layers=2, kv_heads=4, size=16, each=4)


@pytest.mark.parametrize("S", [2, 7, 20])
def test_cost_of_a_step(S):
    """4·S·D per block grows with the past, all else does not; without a cache S steps."""
    flops, time, held = step_cost(Writer(20), S, cached=True)
    assert flops == 2 * (2 * 12 * 64**2 + 64 * 20) + 2 * 4 * S * 64
    assert time > 0
    assert held == S * cache_bytes(layers=2, kv_heads=4, size=16, each=4)
    assert step_cost(Writer(20), S, cached=False)[::2] == (S * flops, 0)


# ---- the weights ----


def test_look_gives_the_weights_that_are_used():
    """Times the values they are the output of the layer."""
    model, char_BT = Writer(20).double(), torch.randint(20, (2, 7))
    with torch.no_grad():
        weight = look(model, char_BT)
        assert weight.shape == (8, 2, 7, 7)
        assert torch.allclose(weight.sum(-1), torch.ones(8, 2, 7).double())
        assert (weight[..., ~causal_mask(7, 7)] == 0).all()
        x_BTD = model.embed(char_BT)
        for layer, block in enumerate(model.blocks):
            normed = block.norm(x_BTD)
            value = split_heads(block.mix.to_v(normed), 4)
            weight_BHTS = weight[4 * layer : 4 * layer + 4].transpose(0, 1)
            found = block.mix.to_out(merge_heads(weight_BHTS @ value))
            assert torch.allclose(found, block.mix(normed))
            x_BTD = block(x_BTD)


@pytest.mark.parametrize("head", [0, 3, 6])
def test_flatten_makes_one_head_uniform_and_leaves_the_rest(head):
    """In the copy that head weighs all alike; the scores change; the model does not."""
    model, char_BT = Writer(20), torch.randint(20, (2, 7))
    before = model(char_BT)
    flat = flatten(model, [head])
    weight, old = look(flat, char_BT), look(model, char_BT)
    past = causal_mask(7, 7)
    expected = (past / past.sum(1, keepdim=True)).expand(2, 7, 7)
    assert torch.allclose(weight[head], expected)
    same_block = [h for h in range(head // 4 * 4, head // 4 * 4 + 4) if h != head]
    assert torch.allclose(weight[same_block], old[same_block])
    assert not torch.allclose(flat(char_BT), before)
    assert model(char_BT).equal(before)
