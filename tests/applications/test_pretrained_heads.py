"""What the page measures, against independent loops, and the data it measures on."""

import random
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from snippets.applications.encoder import Encoder, embed, pooled
from snippets.applications.parallel_text import read_pairs
from snippets.applications.pretrained_heads import (
    LINKS,
    TWINS,
    at,
    chosen,
    drawn,
    drift,
    equal,
    leave_one_out,
    link_hits,
    looks,
    maps_of,
    recall,
    removed,
    shuffled,
    tokens_of,
)
from snippets.properties.error_budget import error_budget, largest_error

WORDS = "the fox and dog it is too big small 狐狸 狗 大 .".split()


@pytest.fixture(scope="module")
def tiny():
    """Return a small random encoder and a tokenizer of whole words."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B </s>",
        special_tokens=[("<s>", 1), ("</s>", 2)],
    )
    tokenizer.enable_padding()
    torch.manual_seed(3)
    model = Encoder(len(vocabulary), layers=2, heads=3, model_size=12).eval()
    with torch.no_grad():
        for layer in model.layers:
            layer.mix.to_q.weight.mul_(5)
    return model, tokenizer


@pytest.fixture(scope="module")
def tatoeba():
    return {(p.zh_id, p.en_id): (p.zh, p.en) for p in read_pairs()}


def weights_and_mask():
    """Return random weights (2, 3, 5, 5) whose second text has two tokens of padding."""
    keep = torch.arange(5) < torch.tensor([[5], [3]])
    score = torch.randn(2, 3, 5, 5).masked_fill(~keep[:, None, None], -torch.inf)
    return keep, score.softmax(-1)


def test_pairs_are_random_but_the_same_each_time_and_share_no_sentence(tatoeba):
    """Which the page asserts, too; each English side has 6 to 12 words."""
    pairs = drawn(list(tatoeba.values()), 240)
    assert pairs == drawn(list(tatoeba.values()), 240)
    assert len({text for pair in pairs for text in pair}) == 480
    assert all(6 <= len(en.split()) <= 12 for _, en in pairs)
    assert pairs[:3] != list(tatoeba.values())[:3]
    assert len(drawn(pairs[:5], 240)) == 5


def test_equal_weights_are_the_mean_of_what_is_no_padding():
    """Rows sum to one, padding gets nothing."""
    keep, weight = weights_and_mask()
    same = equal(keep, 0, weight)
    assert same.shape == weight.shape
    assert torch.allclose(same[0], torch.full((3, 5, 5), 0.2))
    assert torch.allclose(same[1, :, :, :3], torch.full((3, 5, 3), 1 / 3))
    assert (same[1, :, :, 3:] == 0).all()


def test_shuffled_weights_are_the_same_numbers_elsewhere():
    """Each row keeps its numbers, padding stays at zero, rows move by themselves."""
    keep, weight = weights_and_mask()
    other = shuffled(keep, 0, weight)
    assert other.sort(-1).values.equal(weight.sort(-1).values)
    assert (other[1, :, :, 3:] == 0).all()
    assert not other.equal(weight)
    orders = {tuple(row.argsort().tolist()) for row in other[0].flatten(0, 1)}
    assert len(orders) > 5


def test_a_change_of_one_head_leaves_the_others():
    """Only that layer and that head, and not in place."""
    keep, weight = weights_and_mask()
    before = weight.clone()
    change = at((1, 2), removed)
    assert change(keep, 0, weight).equal(weight)
    changed = change(keep, 1, weight)
    assert (changed[:, 2] == 0).all()
    assert changed[:, :2].equal(weight[:, :2])
    assert weight.equal(before)


def test_a_text_is_embedded_as_it_is_alone(tiny):
    """Padding in a batch, and where the batches are cut, change nothing."""
    model, tokenizer = tiny
    texts = [" ".join(random.Random(i).choices(WORDS, k=1 + i % 7)) for i in range(90)]
    for change in (None, equal, removed):
        together = embed(model, tokenizer, texts, change)
        alone = torch.cat([embed(model, tokenizer, [t], change) for t in texts])
        assert torch.allclose(together.norm(dim=1), torch.ones(90))
        assert largest_error(together, alone.double()) <= error_budget(
            alone, alone.double(), 8
        )


def test_attention_is_used(tiny):
    """Equal, shuffled and no weights each give another embedding."""
    plain = embed(*tiny, ["the fox is big"])
    for change in (equal, shuffled, removed):
        assert (embed(*tiny, ["the fox is big"], change) - plain).abs().max() > 1e-3


def test_recall_equals_a_naive_loop():
    """Six pairs in three parts; the candidates are all second sentences."""
    table = {name: torch.randn(4) for name in "abcdefuvwxyz"}
    pairs = list(zip("abcdef", "uvwxyz", strict=True))
    for i in (0, 1, 4):
        table[pairs[i][1]] = table[pairs[i][0]] * 9
    hits = []
    for first, second in pairs:
        near = max("uvwxyz", key=lambda name, q=first: float(table[q] @ table[name]))
        hits.append(near == second)
    parts = recall(lambda texts: torch.stack([table[t] for t in texts]), pairs)
    assert parts == [sum(hits[i : i + 2]) / 2 for i in (0, 2, 4)]
    assert 0 < sum(parts) < 3


def test_looks_equals_a_naive_loop(tiny):
    """Counted word by word, without the first and the last token of each text."""
    model, tokenizer = tiny
    texts = ["the fox is too big .", "it is"]
    found, count = {}, 0
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text).ids])
        weights = torch.stack(model.weights(ids, ids >= 0))[:, 0].detach()
        end = ids.shape[1] - 1
        for t in range(1, end):
            count += 1
            row = weights[:, :, t]
            for name, value in {
                "largest": row.max(-1).values,
                "previous": row[..., t - 1],
                "next": row[..., t + 1],
                "itself": row[..., t],
                "first": row[..., 0],
                "last": row[..., end],
            }.items():
                found[name] = found.get(name, 0) + value
    seen = looks(model, tokenizer, texts)
    assert list(seen) == list(found)
    for name, total in found.items():
        assert torch.allclose(seen[name], total / count, atol=1e-6)


def test_maps_are_all_heads_and_then_the_baseline(tiny):
    """Layer by layer; the last map is a cosine: symmetric, one on its diagonal."""
    model, tokenizer = tiny
    row, maps = maps_of(model, tokenizer, "the fox", "狐狸")
    assert row.tokens == ["<s>", "the", "fox", "</s>", "狐狸", "</s>"]
    ids = torch.tensor([row.ids])
    assert maps.shape == (2 * 3 + 1, 6, 6)
    assert maps[4].equal(model.weights(ids, ids >= 0)[1][0, 1])
    assert torch.allclose(maps[-1], maps[-1].T)
    assert torch.allclose(maps[-1].diagonal(), torch.ones(6))


def test_chosen_reads_what_it_gives_to_both_candidates(tiny):
    """Twin, ending, candidate, head: each from the sentence's own map."""
    twins = "the fox and dog and it is too | fox dog | big small\n"
    weight = chosen(*tiny, twins * 2)
    assert weight.shape == (2, 2, 2, 6)
    for ending, word in enumerate(("big", "small")):
        row, maps = maps_of(*tiny, f"the fox and dog and it is too {word}.")
        for candidate, name in enumerate(("fox", "dog")):
            at_it = maps[:-1, row.tokens.index("it"), row.tokens.index(name)]
            assert weight[1, ending, candidate].equal(at_it)


def test_every_twin_has_its_words_once():
    """Two candidates and two endings, and one "it"."""
    lines = TWINS.strip().splitlines()
    assert len(lines) == 8
    for line in lines:
        text, candidates, endings = (part.split() for part in line.split("|"))
        assert [text.count(word) for word in (*candidates, "it")] == [1, 1, 1]
        assert len(endings) == 2


def test_tokens_of_a_word_are_those_that_overlap_it(tiny):
    """In the text that is meant, special tokens never."""
    row = tiny[1].encode("the fox", "fox the")
    assert tokens_of(row, 0, "the fox", "fox") == [2]
    assert tokens_of(row, 1, "fox the", "fox") == [4]
    assert tokens_of(row, 0, "the fox", "e f") == [1, 2]
    assert tokens_of(row, 0, "the fox", "he") == [1]


def test_link_hits_equal_a_naive_loop(tiny):
    """The largest entry among the other text's tokens, both ways, for every map."""
    pair, links = ("狐狸 大 狗", "the fox is big"), ["狐狸=fox", "大=big"]
    row, maps = maps_of(*tiny, *pair)
    hits = link_hits(*tiny, pair, links)
    assert row.tokens[1:4] == ["狐狸", "大", "狗"]
    zh, en = [1, 2, 3], [5, 6, 7, 8]
    expected = []
    for a, b in ((1, 6), (2, 8)):
        expected.append([max(en, key=lambda t, a=a, m=m: m[a, t]) == b for m in maps])
        expected.append([max(zh, key=lambda t, b=b, m=m: m[b, t]) == a for m in maps])
    assert hits.tolist() == expected


def test_links_stand_in_their_sentences_once(tatoeba):
    """Words written by hand, checked against the text."""
    lines = LINKS.strip().splitlines()
    assert len(lines) == 16
    for line in lines:
        zh_id, en_id, *links = line.split()
        zh, en = tatoeba[int(zh_id), int(en_id)]
        for link in links:
            a, b = link.split("=")
            assert (zh.count(a), en.count(b)) == (1, 1), link


def test_drift_changes_one_head_at_a_time(tiny):
    """Each entry equals one embedding with one head changed."""
    texts = ["the fox is big", "it is too small ."]
    far = drift(*tiny, texts, removed)
    assert far.shape == (2, 3)
    base = embed(*tiny, texts)
    for layer, head in ((0, 2), (1, 0)):
        other = embed(*tiny, texts, at((layer, head), removed))
        expected = 1 - F.cosine_similarity(base, other).mean()
        assert far[layer, head].item() == pytest.approx(expected.item(), abs=1e-6)
    assert far.max() > 1e-4
    nothing = drift(*tiny, texts, lambda keep, layer, weight: weight)
    assert nothing.abs().max() < 1e-6


def test_leave_one_out_equals_a_naive_loop(tiny):
    """A token left out is neither attended to nor counted in the mean."""
    model, tokenizer = tiny
    ids, worth, received = leave_one_out(model, tokenizer, "the fox is big")
    all_ids = torch.tensor([tokenizer.encode("the fox is big").ids])
    keep = torch.ones_like(all_ids).bool()
    whole = pooled(model(all_ids, keep), keep)
    assert ids == all_ids[0, 1:-1].tolist()
    assert received.shape == (2, 4)
    weights = model.weights(all_ids, keep)
    for i in range(4):
        without = keep.clone()
        without[0, i + 1] = False
        part = pooled(model(all_ids, without), without)
        expected = 1 - F.cosine_similarity(whole, part)
        assert worth[i].item() == pytest.approx(expected.item(), abs=1e-6)
        column = weights[1][0, :, :, i + 1].mean()
        assert received[1, i].item() == pytest.approx(column.item(), abs=1e-6)


def test_change_can_be_bound_to_a_mask(tiny):
    """As `embed` binds it for the encoder."""
    model, tokenizer = tiny
    ids = torch.tensor([tokenizer.encode("the fox").ids])
    keep = torch.ones_like(ids).bool()
    bound = model(ids, keep, edit=partial(equal, keep))
    assert torch.allclose(pooled(bound, keep), embed(*tiny, ["the fox"], equal))
