"""The pairs of sentences, their families, and a split without leaks."""

import re
from collections import Counter

import pytest
import zhconv
from hypothesis import given
from hypothesis import strategies as st

from snippets.applications import parallel_text as page
from snippets.applications.parallel_text import (
    Pair,
    families_of,
    plain,
    read_pairs,
    split_pairs,
)
from tests.running import run_main


@pytest.fixture(scope="module")
def pairs():
    """Return all pairs, read once."""
    return read_pairs()


letters = st.text("甲乙丙", min_size=1, max_size=2)
words = st.text("abc", min_size=1, max_size=2)
some_pairs = st.lists(st.tuples(letters, words), max_size=20).map(
    lambda rows: [Pair(zh, en, n, n) for n, (zh, en) in enumerate(rows)]
)


def test_pairs_are_distinct_and_simplified(pairs):
    """Counts of the file; no pair twice; what is Traditional has become Simplified."""
    assert len(pairs) == len({pair[:2] for pair in pairs}) == 56381
    assert all(pair.zh and pair.en and pair.zh_id > 0 < pair.en_id for pair in pairs)
    assert pairs[0].zh == "我们试试看！"
    assert not any(zhconv.convert(p.zh, "zh-cn") != p.zh for p in pairs[:2000])
    assert not any(character in pair.zh for pair in pairs for character in "們說國時")


def test_reading_keeps_the_first_of_equal_pairs(tmp_path, monkeypatch):
    """Traditional and Simplified forms of one sentence are one pair."""
    path = tmp_path / "tatoeba.tsv"
    path.write_text("1\t他說\t2\tHe says\n3\t他说\t4\tHe says\n3\t他说\t5\tHe said\n")
    monkeypatch.setattr(page, "package_file", lambda *given: path)
    expected = [Pair("他说", "He says", 1, 2), Pair("他说", "He said", 3, 5)]
    assert read_pairs() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Let's try it!", "let s try it"),
        ("  “LET’S try… it” ", "let s try it"),
        ("你好，世界。", "你好 世界"),
        ("a_b", "a b"),
        ("?!", ""),
    ],
)
def test_plain(text, expected):
    """Case and punctuation do not make two sentences of one."""
    assert plain(text) == expected


@given(some_pairs)
def test_families_equal_a_naive_merging(pairs):
    """Two pairs share a number exactly when a chain of equal sentences joins them."""
    families = [{n} for n in range(len(pairs))]
    for a, first in enumerate(pairs):
        for b, second in enumerate(pairs[:a]):
            if first.zh == second.zh or first.en == second.en:
                families[a] |= families[b]
                for member in families[a]:
                    families[member] = families[a]
    found = families_of(pairs)
    for a in range(len(pairs)):
        assert {b for b in range(len(pairs)) if found[b] == found[a]} == families[a]


def test_chinese_and_english_never_meet():
    """The same text in both columns joins nothing by itself."""
    a, b = families_of([Pair("x", "y", 1, 1), Pair("y", "x", 2, 2)])
    assert a != b


@given(some_pairs, st.lists(st.integers(0, 8), max_size=3), st.integers(0, 3))
def test_split_loses_nothing_and_does_not_leak(pairs, sizes, seed):
    """Every pair is in one part, and so is every sentence."""
    parts = split_pairs(pairs, sizes, seed)
    assert len(parts) == len(sizes) + 1
    assert Counter(pair for part in parts for pair in part) == Counter(pairs)
    for column in range(2):
        held = [{plain(pair[column]) for pair in part} for part in parts]
        assert sum(map(len, held)) == len(set().union(*held))


def test_split_has_the_sizes_asked_for(pairs):
    """At most a family more; the same seed, the same parts; another seed, others."""
    pairs = pairs[:4000]
    parts = split_pairs(pairs, [500, 300])
    largest = max(Counter(families_of(pairs)).values())
    assert 500 <= len(parts[0]) < 500 + largest
    assert 300 <= len(parts[1]) < 300 + largest
    assert parts == split_pairs(pairs, [500, 300])
    assert parts[0] != split_pairs(pairs, [500, 300], seed=1)[0]


def test_a_split_by_rows_would_leak(pairs):
    """What the families are for: cut by rows, a tenth of the test part is known."""
    test, training = pairs[::28], [p for n, p in enumerate(pairs) if n % 28]
    seen = [{plain(pair[column]) for pair in training} for column in range(2)]
    leaks = sum(plain(p.zh) in seen[0] or plain(p.en) in seen[1] for p in test)
    assert leaks > 0.1 * len(test)


def test_demonstration():
    """A split by rows has seen many of its test sentences, one by families none."""
    shares = re.findall(
        r"split by (\w+): ([\d.]+)% of (\w\w)",
        run_main("snippets.applications.parallel_text").output,
    )
    assert [(by, of) for by, _, of in shares] == [
        ("rows", "zh"),
        ("rows", "en"),
        ("families", "zh"),
        ("families", "en"),
    ]
    assert all((float(share) > 5) == (by == "rows") for by, share, _ in shares)
