"""What the heads of two pretrained encoders attend to, and what that explains."""

# --8<-- [start:imports]
import random
from collections import Counter
from collections.abc import Callable
from functools import partial

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from scipy.stats import kendalltau, spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from tokenizers import Encoding, Tokenizer
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.applications.e5 import load_e5
from snippets.applications.encoder import (
    Encoder,
    bag,
    batch_of,
    embed,
    hits,
    load_minilm,
    pooled,
)
from snippets.applications.package_data import chinese_labels
from snippets.applications.parallel_text import PAIRS_PACKAGE, read_pairs
from snippets.applications.races import Runs, in_short, parted, show, spread

# --8<-- [start:pairs]
Pairs = list[tuple[str, str]]


def drawn(pairs: Pairs, count: int) -> Pairs:
    """Return random pairs, the second of 6 to 12 words, no sentence in two of them."""
    used, kept = set(), []
    for pair in random.Random(0).sample(pairs, len(pairs)):
        if (
            6 <= len(pair[1].split()) <= 12
            and not used & set(pair)
            and len(kept) < count
        ):
            used |= set(pair)
            kept.append(pair)
    return kept


# --8<-- [end:pairs]


# --8<-- [start:changes]
Change = Callable[
    [Tensor, int, Tensor], Tensor
]  # keep (B, T), layer, weights → weights


def equal(keep_BT: Tensor, layer: int, weight_BHTT: Tensor) -> Tensor:
    """Give every token that is no padding the same weight."""
    share_BT = keep_BT / keep_BT.sum(1, keepdim=True)
    return share_BT[:, None, None].expand_as(weight_BHTT)


def shuffled(keep_BT: Tensor, layer: int, weight_BHTT: Tensor) -> Tensor:
    """Permute the weights of each row among the tokens, which stand before padding."""
    draw_BHTT = torch.rand_like(weight_BHTT).masked_fill(~keep_BT[:, None, None], 2)
    return weight_BHTT.gather(-1, draw_BHTT.argsort(-1))


def removed(keep_BT: Tensor, layer: int, weight_BHTT: Tensor) -> Tensor:
    """Give no weight at all: the heads add nothing."""
    return torch.zeros_like(weight_BHTT)


def at(place: tuple[int, int], change: Change) -> Change:
    """Return a change of one head only; `place` is its layer and its number."""

    def changed(keep_BT: Tensor, layer: int, weight_BHTT: Tensor) -> Tensor:
        if layer != place[0]:
            return weight_BHTT
        weight_BHTT = weight_BHTT.clone()
        weight_BHTT[:, place[1]] = change(keep_BT, layer, weight_BHTT)[:, place[1]]
        return weight_BHTT

    return changed


# --8<-- [end:changes]


# --8<-- [start:recall]
def recall(embedding: Callable[[list[str]], Tensor], pairs: Pairs) -> list[float]:
    """Return R@1 of three parts: how often a sentence is nearest to its own partner.

    The candidates are the second sentences of all pairs.
    """
    a_BD, b_BD = (embedding(list(side)) for side in zip(*pairs, strict=True))
    return [part_N.mean().item() for part_N in hits(a_BD, b_BD).chunk(3)]


# --8<-- [end:recall]


# --8<-- [start:looks]
@torch.no_grad()
def looks(model: Encoder, tokenizer: Tokenizer, texts: list[str]) -> dict[str, Tensor]:
    """Return how much weight each head's words give, on average, to certain tokens.

    Each entry is (L, H). The first and the last token of a text ask nothing here.
    """
    token_BT, keep_BT, _ = batch_of(tokenizer, texts)
    weight_LBHTT = torch.stack(model.weights(token_BT, keep_BT))
    place_BT = torch.arange(keep_BT.shape[1]).expand_as(keep_BT)
    end_B1 = keep_BT.sum(1, keepdim=True) - 1
    word_BT = (place_BT > 0) & (place_BT < end_B1)
    step_BTT = place_BT.unsqueeze(1) - place_BT.unsqueeze(2)
    seen = {"largest": weight_LBHTT.max(-1).values}
    for name, target_BTT in {
        "previous": step_BTT == -1,
        "next": step_BTT == 1,
        "itself": step_BTT == 0,
        "first": (place_BT == 0).unsqueeze(1).expand_as(step_BTT),
        "last": (place_BT == end_B1).unsqueeze(1).expand_as(step_BTT),
    }.items():
        seen[name] = (weight_LBHTT * target_BTT.unsqueeze(1)).sum(-1)
    return {
        name: weight_LBHT.transpose(2, 3)[:, word_BT].mean(1)
        for name, weight_LBHT in seen.items()
    }


# --8<-- [end:looks]


# --8<-- [start:maps]
@torch.no_grad()
def maps_of(
    model: Encoder, tokenizer: Tokenizer, *texts: str
) -> tuple[Encoding, Tensor]:
    """Return the tokens of one or two texts in one input, and the maps (P, T, T).

    The maps are the weights of all heads, layer by layer, and last a baseline without
    attention: the cosines of the input embeddings.
    """
    row = tokenizer.encode(*texts)
    token_1T = torch.tensor([row.ids])
    weight_PTT = torch.cat(model.weights(token_1T, token_1T >= 0)).flatten(0, 1)
    vector_TD = F.normalize(model.word(token_1T)[0], dim=1)
    return row, torch.cat((weight_PTT, (vector_TD @ vector_TD.T).unsqueeze(0)))


# --8<-- [end:maps]


# --8<-- [start:twins]
TWINS = """
The animal didn't cross the street because it was too | animal street | tired wide
The trophy doesn't fit in the suitcase because it is too | trophy suitcase | big small
The truck didn't pass under the bridge because it was too | truck bridge | tall low
I poured water from the bottle into the cup until it was | bottle cup | empty full
The fish ate the worm because it was | fish worm | hungry fresh
The piano didn't go through the window because it was too | piano window | wide narrow
The rope could not lift the box because it was too | rope box | weak heavy
The car overtook the bus because it was so | car bus | fast slow
"""


def chosen(model: Encoder, tokenizer: Tokenizer, twins: str = TWINS) -> Tensor:
    """Return what "it" gives: (twins, endings, candidates, heads of all layers)."""
    found_E = []
    for line in twins.strip().splitlines():
        text, candidates, endings = (part.strip() for part in line.split("|"))
        for ending in endings.split():
            row, map_PTT = maps_of(model, tokenizer, f"{text} {ending}.")
            it = row.tokens.index("it")
            places = [row.tokens.index(word) for word in candidates.split()]
            found_E += [map_PTT[:-1, it, place] for place in places]
    return torch.stack(found_E).unflatten(0, (-1, 2, 2))


# --8<-- [end:twins]


# --8<-- [start:links]
LINKS = """
8744816 8743000 麻雀=sparrow 树=trees 唱歌=singing
1397328 667132 吉他=guitar 贵=expensive 买=buy
829551 65938 失踪=missing 猫=cat 找到=found
348587 1476772 栗子=chestnuts 煮=Boil 分钟=minutes
845935 34600 金字塔=pyramids 古=ancient 建造=built
2080585 296771 反对=objected 妻子=wife 工作=working
787620 313725 下午=afternoon 洗=wash 自行车=bike
1313908 8589320 医生=doctor 建议=suggests 病人=patient 停止=stop
332565 56877 书=book 你=you 读=read 难=difficult
342838 395437 忘记=forgot 信封=envelope 邮票=stamp
2680393 314689 未来=future 不安=uneasy 想到=thought
5611670 4013555 汤姆=Tom 钱=money 付=pay 租金=rent
759059 7834158 爱=Love 希望=hope 帮助=helped 迅速=quickly
613887 460272 学=learn 外=foreign 语=language 难=hard
1259917 7819400 为什么=Why 总是=always 逃避=avoid 话题=topic
881184 22280 我=I 很多=plenty 钱=money
"""


def tokens_of(row: Encoding, side: int, text: str, word: str) -> list[int]:
    """Return the places of the tokens of a word in the first or second text of a row."""
    start = text.index(word)
    return [
        place
        for place, ((a, b), of) in enumerate(
            zip(row.offsets, row.sequence_ids, strict=True)
        )
        if of == side and a < b and a < start + len(word) and b > start
    ]


def link_hits(
    model: Encoder, tokenizer: Tokenizer, pair: tuple[str, str], links: list[str]
) -> Tensor:
    """Return (N, P): whether a word's largest entry in the other text is its partner."""
    row, map_PTT = maps_of(model, tokenizer, *pair)
    hit_P = []
    for link in links:
        words = link.split("=")
        own = [tokens_of(row, side, pair[side], words[side]) for side in (0, 1)]
        for side in (0, 1):
            other = [t for t, of in enumerate(row.sequence_ids) if of == 1 - side]
            best_P = map_PTT[:, own[side]][:, :, other].sum(1).argmax(1)
            hit_P.append(
                torch.isin(torch.tensor(other)[best_P], torch.tensor(own[1 - side]))
            )
    return torch.stack(hit_P)


# --8<-- [end:links]


# --8<-- [start:drift]
def drift(
    model: Encoder, tokenizer: Tokenizer, texts: list[str], change: Change
) -> Tensor:
    """Return 1 - cosine to the unchanged embedding, each head changed alone: (L, H)."""
    base_BD = embed(model, tokenizer, texts)
    heads = model.layers[0].mix.heads
    far_B = [
        1 - (embed(model, tokenizer, texts, at((layer, head), change)) * base_BD).sum(1)
        for layer in range(len(model.layers))
        for head in range(heads)
    ]
    return torch.stack(far_B).mean(1).view(-1, heads)


# --8<-- [end:drift]


# --8<-- [start:leave-one-out]
@torch.no_grad()
def leave_one_out(
    model: Encoder, tokenizer: Tokenizer, text: str
) -> tuple[list[int], Tensor, Tensor]:
    """Return the tokens of the words, what each is worth, and what each receives.

    Worth (N) is 1 - cosine between the embeddings with and without the token; what it
    receives, (L, N), is the mean of its column of weights over queries and heads.
    """
    token_1T, keep_1T, _ = batch_of(tokenizer, [text])
    whole_1D = pooled(model(token_1T, keep_1T), keep_1T)
    received_LT = torch.cat(model.weights(token_1T, keep_1T)).mean((1, 2))
    without_NT = ~torch.eye(token_1T.shape[1]).bool()[1:-1]
    state_NTD = model(token_1T.expand_as(without_NT), without_NT)
    worth_N = 1 - (pooled(state_NTD, without_NT) * whole_1D).sum(1)
    return token_1T[0, 1:-1].tolist(), worth_N, received_LT[:, 1:-1]


# --8<-- [end:leave-one-out]

if __name__ == "__main__":
    # --8<-- [start:data]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    tatoeba = {(p.zh_id, p.en_id): (p.zh, p.en) for p in read_pairs()}
    bilingual = drawn(list(tatoeba.values()), 210)
    english_of = {}
    for (zh_id, _), (_, en) in tatoeba.items():
        english_of.setdefault(zh_id, []).append(en)
    paraphrases = drawn([tuple(t[:2]) for t in english_of.values() if len(t) > 1], 210)
    for name, pairs in (("bilingual", bilingual), ("paraphrases", paraphrases)):
        assert len({text for pair in pairs for text in pair}) == 2 * len(pairs) == 420
        print(f"{name}: {len(pairs)} pairs, such as {' | '.join(pairs[0])}")
    print("sentences: tatoeba.org, CC BY 2.0 FR, from", PAIRS_PACKAGE)
    # --8<-- [end:data]

    # --8<-- [start:load]
    minilm, e5 = load_minilm(), load_e5()
    for name, (model, _) in (("MiniLM", minilm), ("e5", e5)):
        millions = sum(part.numel() for part in model.parameters()) / 1e6
        heads = len(model.layers) * model.layers[0].mix.heads
        print(f"{name}: {millions:.1f} M parameters, {heads} heads")
    # --8<-- [end:load]

    # --8<-- [start:with-and-without]
    scores = {}
    counts = TfidfVectorizer().fit([text for pair in paraphrases for text in pair])
    scores["MiniLM", "TF-IDF"] = recall(
        lambda texts: torch.tensor(counts.transform(texts).toarray()), paraphrases
    )
    for name, (model, tokenizer), pairs, start in (
        ("MiniLM", minilm, paraphrases, ""),
        ("e5", e5, bilingual, "query: "),  # e5 was trained with this prefix
    ):
        scores[name, "bag"] = recall(partial(bag, model, tokenizer), pairs)
        for change in (None, equal, shuffled):
            scores[name, change.__name__ if change else "learned"] = recall(
                lambda texts, model=model, tokenizer=tokenizer, start=start, change=change: (
                    embed(model, tokenizer, [start + text for text in texts], change)
                ),
                pairs,
            )
    for name, plain in (
        ("MiniLM", spread(scores["MiniLM", "TF-IDF"])[0]),
        ("e5", None),
    ):
        learned, without = (Runs(scores=scores[name, w]) for w in ("learned", "bag"))
        in_short(without, learned, plain, digits=2, of=name)
    for (name, weights), parts in scores.items():
        print(f"{name:6}  {weights:8}  R@1 {show(parts, 2)}")
    assert parted(scores["e5", "learned"], scores["e5", "bag"])
    assert parted(scores["e5", "bag"], scores["e5", "equal"])
    assert not parted(scores["MiniLM", "learned"], scores["MiniLM", "bag"])
    # --8<-- [end:with-and-without]

    # --8<-- [start:find]
    english = [first for first, _ in paraphrases]
    seen = looks(*minilm, english)
    best = {
        name: divmod(share_LH.argmax().item(), 12) for name, share_LH in seen.items()
    }
    for name, share_LH in seen.items():
        print(
            f"{name:8}  head {best[name]}: {share_LH.max():.4f},"
            f"  mean of all heads {share_LH.mean():.2f}"
        )
    # --8<-- [end:find]

    # --8<-- [start:figure]
    text = "The animal didn't cross the street because it was too tired."
    row, map_ETT = maps_of(*minilm, text)
    _, axes = plt.subplots(1, 4, sharey=True, figsize=(12, 3.6))
    shown = {name: best[name] for name in ("previous", "next", "first")} | {
        "it": (3, 1)
    }
    for axis, (name, (layer, head)) in zip(axes, shown.items(), strict=True):
        axis.imshow(map_ETT[12 * layer + head].cpu(), vmin=0, vmax=1)
        axis.set_title(f"{name}: layer {layer}, head {head}")
        axis.set_xticks(range(len(row)), row.tokens, rotation=90)
    axes[0].set_yticks(range(len(row)), row.tokens)
    plt.show()
    # --8<-- [end:figure]

    # --8<-- [start:it]
    weight_N22P = chosen(*minilm)
    endings = zip(("tired", "wide"), weight_N22P[0, :, :, 37].tolist(), strict=True)
    for ending, (animal, street) in endings:
        print(f"too {ending}: it → animal {animal:.2f}, it → street {street:.2f}")
    first_N2P = weight_N22P[:, :, 0] > weight_N22P[:, :, 1]
    right_P = (first_N2P[:, 0] & ~first_N2P[:, 1]).sum(0)
    switches = (first_N2P[:, 0] != first_N2P[:, 1])[:, 37].sum().item()
    print(f"head (3, 1) goes with the ending in {switches} of 8 twins", end=", ")
    print(f"takes the first noun {first_N2P[:, :, 37].sum()} of 16 times")
    print(
        f"both endings right: {right_P[37]} of 8; best of 72 heads: {right_P.max()} of 8"
    )
    assert switches <= 1
    assert right_P.max() <= 4
    # --8<-- [end:it]

    # --8<-- [start:translations]
    lines = [line.split() for line in LINKS.strip().splitlines()]
    hits_any = [
        link_hits(*e5, tatoeba[int(zh), int(en)], words) for zh, en, *words in lines
    ]
    choose, test = (
        torch.cat(part).float().mean(0).tolist()
        for part in (hits_any[:8], hits_any[8:])
    )
    linker = choose[:-1].index(max(choose[:-1]))
    mean = sum(test[:-1]) / len(test[:-1])
    print(
        f"chosen on 8 sentences: head {divmod(linker, 12)}, {choose[linker]:.2f} right"
    )
    print(f"on 8 others: this head {test[linker]:.2f}, mean of all heads {mean:.2f},")
    print(f"cosine of the input embeddings {test[-1]:.2f}")
    assert min(test[linker], test[-1]) > mean + 0.2
    # --8<-- [end:translations]

    # --8<-- [start:translation-figure]
    chinese_labels()
    row, map_ETT = maps_of(*e5, *tatoeba[1313908, 8589320])
    zh, en = (
        [t for t, of in enumerate(row.sequence_ids) if of == side] for side in (0, 1)
    )
    _, axes = plt.subplots(1, 2, sharey=True, figsize=(9, 4))
    for axis, title, place in (
        (axes[0], f"layer {linker // 12}, head {linker % 12}", linker),
        (axes[1], "cosine of input embeddings", -1),
    ):
        axis.imshow(map_ETT[place][zh][:, en].cpu(), vmin=0)
        axis.set_title(title)
        axis.set_xticks(range(len(en)), [row.tokens[t] for t in en], rotation=90)
    axes[0].set_yticks(range(len(zh)), [row.tokens[t] for t in zh])
    plt.show()
    # --8<-- [end:translation-figure]

    # --8<-- [start:importance]
    few = english[:8]
    base_BD = embed(*minilm, few)
    apart = (1 - base_BD @ base_BD.T).sum() / (8 * 7)
    print(f"two sentences are {apart:.2f} apart; one head changed moves a sentence by")
    rank = {}
    for change in (equal, shuffled, removed):
        name, far_LH = change.__name__, drift(*minilm, few, change)
        sure, moved = (x_LH.flatten().tolist() for x_LH in (seen["largest"], far_LH))
        rank[name] = spearmanr(sure, moved).statistic
        print(
            f"{name:8}  mean {far_LH.mean():.3f}; head {best['previous']}"
            f" {far_LH[best['previous']]:.3f}, {best['first']} {far_LH[best['first']]:.3f};"
            f" most {max(moved):.3f}, by {divmod(moved.index(max(moved)), 12)};"
            f" rank correlation {rank[name]:+.2f}"
        )
    assert rank["equal"] > rank["removed"] + 0.3
    # --8<-- [end:importance]

    # --8<-- [start:rank]
    common = Counter()
    for encoding in minilm[1].encode_batch([en for _, en in tatoeba.values()][::5]):
        common.update(set(encoding.ids))
    ranks = {}
    for text in english[:40]:
        ids, worth_C, received_LC = leave_one_out(*minilm, text)
        rivals = {f"layer {layer}": part_C for layer, part_C in enumerate(received_LC)}
        rivals["all layers"] = received_LC.mean(0)
        rivals["rarity"] = torch.tensor([-common[i] for i in ids])
        for name, rival_C in rivals.items():
            tau = kendalltau(rival_C.tolist(), worth_C.tolist()).statistic
            ranks.setdefault(name, []).append(tau)
    for name, taus in ranks.items():
        print(f"{name:10}  τ {show(taus, 2)}")
    # --8<-- [end:rank]
