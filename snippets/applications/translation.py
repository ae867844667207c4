"""Translate Chinese with one fixed vector, with additive attention, with a Transformer."""

# --8<-- [start:imports]
import math
import re

import matplotlib.pyplot as plt
import torch
from sacrebleu.metrics import BLEU, CHRF
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import linear_kernel
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

# --8<-- [end:imports]
# isort: split
from snippets.applications.blocks import Block, equal_weights, weights_of
from snippets.applications.package_data import chinese_labels
from snippets.applications.parallel_text import (
    BEGIN,
    END,
    PAD,
    PAIRS_PACKAGE,
    UNKNOWN,
    Batches,
    Pair,
    common_pairs,
    make_batches,
    number,
    plain,
    read_pairs,
    split_pairs,
    words_of,
)
from snippets.applications.races import (
    in_short,
    parted,
    plot_losses,
    race,
    schedule,
    show,
    table,
)
from snippets.foundations.additive import AdditiveAttention
from snippets.positions.sinusoidal import add_positions


# --8<-- [start:recurrent]
def embedding(tokens: int, size: int) -> nn.Embedding:
    """Return vectors of length about 1: those of words also are the output layer."""
    layer = nn.Embedding(tokens, size)
    nn.init.normal_(layer.weight, std=size**-0.5)
    return layer


class Recurrent(nn.Module):
    """A GRU reads and a GRU writes; `attention` reads the memory, or nothing does."""

    def __init__(
        self, characters: int, words: int, size: int, attention: nn.Module | None
    ) -> None:
        """Take the numbers of tokens and the size of embeddings; states are twice it."""
        super().__init__()
        self.source = embedding(characters, size)
        self.target = embedding(words, size)
        self.encoder = nn.GRU(size, size, batch_first=True, bidirectional=True)
        self.start = nn.Linear(2 * size, 2 * size)
        self.decoder = nn.GRU(size, 2 * size, batch_first=True)
        self.attention = attention
        self.to_word = nn.Linear(4 * size, size)

    def encode(self, source_BS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the memory (B, S, D), what of it is real (B, S), the last states (B, D)."""
        real_BS = source_BS != PAD
        # Packed, or the backward direction would read the padding first.
        packed_any = pack_padded_sequence(
            self.source(source_BS), real_BS.sum(1).cpu(), True, enforce_sorted=False
        )
        state_any, last_2BK = self.encoder(packed_any)
        memory_BSD, _ = pad_packed_sequence(state_any, True, 0.0, source_BS.shape[1])
        return memory_BSD, real_BS, last_2BK.transpose(0, 1).flatten(1)

    def decode(
        self, encoded_any: tuple[Tensor, Tensor, Tensor], before_BT: Tensor
    ) -> Tensor:
        """Return a vector (B, T, R) for the word after each of the words before."""
        memory_BSD, real_BS, fixed_BD = encoded_any
        start_1BD = self.start(fixed_BD).tanh().unsqueeze(0)
        state_BTD, _ = self.decoder(self.target(before_BT), start_1BD)
        if self.attention is None:
            context_BTD = fixed_BD.unsqueeze(1).expand(state_BTD.shape)
        else:
            mask_BTS = real_BS.unsqueeze(1).expand(-1, before_BT.shape[1], -1)
            context_BTD, _ = self.attention(state_BTD, memory_BSD, memory_BSD, mask_BTS)
        return self.to_word(torch.cat((state_BTD, context_BTD), dim=-1)).tanh()


# --8<-- [end:recurrent]


# --8<-- [start:transformer]
class Transformer(nn.Module):
    """Blocks read, blocks with cross-attention write (Vaswani et al. 2017, §3.1)."""

    def __init__(self, characters: int, words: int, size: int, layers: int) -> None:
        """Take the numbers of tokens, the model size, the number of blocks per side."""
        super().__init__()
        self.reading = nn.ModuleList(Block(size, 4, widen=2) for _ in range(layers))
        self.writing = nn.ModuleList(
            Block(size, 4, cross=True, widen=2) for _ in range(layers)
        )
        for part_any in self.parameters():
            if part_any.dim() > 1:  # larger than PyTorch's default: sharper scores
                nn.init.xavier_uniform_(part_any)
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(2))
        self.source = embedding(characters, size)
        self.target = embedding(words, size)

    def embed(self, layer: nn.Embedding, token_BT: Tensor) -> Tensor:
        """Return embeddings with positions, (B, T, D)."""
        return add_positions(layer(token_BT) * math.sqrt(layer.embedding_dim))

    def encode(self, source_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Return the memory (B, S, D) and what of it is real (B, S)."""
        real_BS = source_BS != PAD
        mask_BSS = real_BS.unsqueeze(1).expand(-1, source_BS.shape[1], -1)
        x_BSD = self.embed(self.source, source_BS)
        for block in self.reading:
            x_BSD = block(x_BSD, mask_BSS)
        return self.norms[0](x_BSD), real_BS

    def decode(self, encoded_any: tuple[Tensor, Tensor], before_BT: Tensor) -> Tensor:
        """Return a vector (B, T, D) for the word after each of the words before."""
        memory_BSD, real_BS = encoded_any
        B, T = before_BT.shape
        past_BTT = torch.ones(T, T, dtype=torch.bool).tril().expand(B, T, T)
        mask_BTS = real_BS.unsqueeze(1).expand(B, T, -1)
        x_BTD = self.embed(self.target, before_BT)
        for block in self.writing:
            x_BTD = block(x_BTD, past_BTT, memory_BSD, mask_BTS)
        return self.norms[1](x_BTD)


# --8<-- [end:transformer]


# --8<-- [start:train]
Translator = Recurrent | Transformer


def train(model: Translator, batches: Batches, steps: int, rate: float) -> list[float]:
    """Train in place on batches in random order; return the loss per word of each step."""
    optimizer = torch.optim.Adam(model.parameters())
    plan = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.1
    )
    losses, waiting = [], []
    while len(losses) < steps:
        waiting = waiting or torch.randperm(len(batches)).tolist()
        source_BS, target_BU = batches[waiting.pop()]
        before_BT, wanted_BT = target_BU[:, :-1], target_BU[:, 1:]
        real_BT = wanted_BT != PAD
        state_PD = model.decode(model.encode(source_BS), before_BT)[real_BT]
        logit_PW = state_PD @ model.target.weight.T
        loss = nn.functional.cross_entropy(logit_PW, wanted_BT[real_BT])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        plan.step()
        losses.append(loss.item())
    return losses


# --8<-- [end:train]


# --8<-- [start:translate]
@torch.no_grad()
def translate(model: Translator, source_BS: Tensor, longest: int = 24) -> Tensor:
    """Return the greedy translation (B, T), BEGIN first; PAD follows END."""
    encoded_any = model.encode(source_BS)
    said_BT = torch.full((len(source_BS), 1), BEGIN)
    while said_BT.shape[1] <= longest and not (said_BT == END).any(1).all():
        state_BD = model.decode(encoded_any, said_BT)[:, -1]
        next_B = (state_BD @ model.target.weight.T).argmax(-1)
        next_B = next_B.masked_fill((said_BT == END).any(1), PAD)
        said_BT = torch.cat((said_BT, next_B.unsqueeze(1)), dim=1)
    return said_BT


def say(model: Translator, batches: Batches, words: dict[str, int]) -> list[str]:
    """Return the translation of every source in the batches, marks joined to words."""
    name = {n: word for word, n in words.items()} | {UNKNOWN: "<unk>"}
    rows = []
    for source_BS, _ in batches:
        rows += translate(model, source_BS).tolist()
    texts = [" ".join(name[n] for n in row if n >= UNKNOWN) for row in rows]
    return [re.sub(r" (?=[.,!?])", "", text) for text in texts]


BLEU_METRIC, CHRF_METRIC = BLEU(lowercase=True), CHRF(lowercase=True)


def measure(said: list[str], pairs: list[Pair], metric: BLEU | CHRF) -> list[float]:
    """Return the score over all pairs, then by source length: to 7, 8 to 11, 12 up."""
    scores = []
    for low, high in ((0, 99), (0, 7), (8, 11), (12, 99)):
        chosen = [n for n, pair in enumerate(pairs) if low <= len(pair.zh) <= high]
        references = [[pairs[n].en for n in chosen]]
        scores.append(metric.corpus_score([said[n] for n in chosen], references).score)
    return scores


# --8<-- [end:translate]


# --8<-- [start:weights]
@torch.no_grad()
def attention_of(model: Translator, source_BS: Tensor, before_BT: Tensor) -> Tensor:
    """Return the weights (B, T, S) on the source while the next word is chosen.

    Of a Transformer: those of the last block, mean over heads.
    """
    layer = getattr(model, "attention", None) or model.writing[-1].cross
    kept_any = []

    def keep(_: nn.Module, given_any: tuple, out_any: tuple | Tensor) -> None:
        own = isinstance(out_any, tuple)  # additive attention returns its weights
        kept_any.append(out_any[1] if own else weights_of(layer, *given_any).mean(1))

    watch = layer.register_forward_hook(keep)
    model.decode(model.encode(source_BS), before_BT)
    watch.remove()
    return kept_any[0]


def draw_weights(
    model: Translator, pair: Pair, zh: dict[str, int], en: dict[str, int]
) -> None:
    """Draw a row for each word of `pair.en` and a column for each character read."""
    source_1S, target_1U = make_batches([pair], zh, en, 1)[0]
    weight_TS = attention_of(model, source_1S, target_1U[:, :-1])[0]
    plt.figure(figsize=(5, 4))
    plt.imshow(weight_TS.numpy(force=True), vmin=0, vmax=1)
    plt.xticks(range(len(pair.zh)), list(pair.zh))
    plt.yticks(range(len(weight_TS)), [*words_of(pair.en), "</s>"])
    plt.colorbar(label="weight")
    plt.show()


# --8<-- [end:weights]

if __name__ == "__main__":
    # --8<-- [start:load]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    pairs = common_pairs(read_pairs(), longest=25, often=100)
    parts = test, validation, training = split_pairs(pairs, [800, 800])
    for part in parts:
        part.sort(key=lambda pair: (len(pair.zh), len(words_of(pair.en))))
    for column in range(2):
        held = [{plain(pair[column]) for pair in part} for part in parts]
        assert sum(map(len, held)) == len(set().union(*held))
    zh = number([list(pair.zh) for pair in training])
    en = number([words_of(pair.en) for pair in training])
    batches = make_batches(training, zh, en, 64)
    asked = make_batches(test, zh, en, 200)
    print(f"tatoeba.org, CC BY 2.0 FR, from {PAIRS_PACKAGE}: {len(pairs)} pairs")
    print("to train, tune, test:", len(training), len(validation), len(test))
    print(f"{len(zh)} characters, {len(en)} words, {len(batches)} batches")
    for pair in (test[0], test[400], test[-1]):
        print(f"{pair.zh} (#{pair.zh_id})  {pair.en} (#{pair.en_id})")
    # --8<-- [end:load]

    # --8<-- [start:memory]
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 2))
    known = vectorizer.fit_transform([pair.zh for pair in training])
    likeness = linear_kernel(vectorizer.transform([pair.zh for pair in test]), known)
    remembered = [training[n].en for n in likeness.argmax(1)]
    print(f"translation memory: BLEU {measure(remembered, test, BLEU_METRIC)[0]:.1f}")
    # --8<-- [end:memory]

    # --8<-- [start:race]
    sizes, steps = (len(zh) + 4, len(en) + 4), schedule(cpu=450, gpu=6000)
    makers = {
        "fixed vector": lambda: Recurrent(*sizes, 98, None),
        "attention": lambda: Recurrent(*sizes, 96, AdditiveAttention(192, 192, 48)),
        "Transformer": lambda: Transformer(*sizes, 96, layers=2),
    }

    def score(model: Translator) -> float:
        """Translate the test part, keep what was said with the model, return BLEU."""
        model.said = say(model, asked, en)
        return measure(model.said, test, BLEU_METRIC)[0]

    rates = {
        Recurrent: 0.008,
        Transformer: 0.004,
    }  # chosen on validation, for attention not separately
    results = race(
        makers, lambda m: train(m, batches, steps, rates[type(m)]), score, seeds=2
    )
    table(results, "BLEU", 1)
    # --8<-- [end:race]

    # --8<-- [start:losses]
    plot_losses(results, window=25)
    # --8<-- [end:losses]

    # --8<-- [start:lengths]
    said = {"memory": [remembered]}
    said |= {name: [model.said for model in r.models] for name, r in results.items()}
    groups = [min(len(pair.zh) // 4, 3) for pair in test]  # to 7, 8 to 11, 12 up
    print("sentences:", len(test), groups.count(0) + groups.count(1), end=" ")
    print(groups.count(2), groups.count(3))
    for metric in (BLEU_METRIC, CHRF_METRIC):
        print("characters:   all         to 7        8 to 11     12 up")
        for name, runs in said.items():
            columns = zip(*(measure(run, test, metric) for run in runs), strict=True)
            texts = (show(column, 1).removesuffix(" (one run)") for column in columns)
            print(f"{name:13}", *(f"{text:11}" for text in texts))
        print(metric.get_signature())
    fixed, attended, transformed = (runs.scores for runs in results.values())
    print("Transformer above attention:", parted(transformed, attended))
    assert min(attended) > max(fixed)
    assert parted(transformed, fixed)
    memory = measure(remembered, test, BLEU_METRIC)[0]
    assert min(transformed) > memory
    in_short(results["fixed vector"], results["attention"], memory, digits=1)
    # --8<-- [end:lengths]

    # --8<-- [start:examples]
    for place in (513, 745):
        print(f"{test[place].zh} (#{test[place].zh_id})  {test[place].en}")
        for name, runs in results.items():
            print(f"   {name}: {runs.models[0].said[place]}")
    # --8<-- [end:examples]

    # --8<-- [start:additive-figure]
    chinese_labels()
    attention, transformer = (
        results[n].models[0] for n in ("attention", "Transformer")
    )
    draw_weights(attention, test[513]._replace(en=attention.said[513]), zh, en)
    # --8<-- [end:additive-figure]

    # --8<-- [start:transformer-figure]
    draw_weights(transformer, test[513]._replace(en=transformer.said[513]), zh, en)
    # --8<-- [end:transformer-figure]

    # --8<-- [start:equal-weights]
    for model in (attention, transformer):
        scorer = "cross.to_q" if model is transformer else "attention.energy"
        flat = say(equal_weights(model, scorer), asked, en)
        learned, equal = (measure(x, test, BLEU_METRIC)[0] for x in (model.said, flat))
        print(f"{type(model).__name__}: BLEU {learned:.1f}, equal weights {equal:.1f}")
        assert equal < learned / 2
    # --8<-- [end:equal-weights]
