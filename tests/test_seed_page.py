"""The page on the seed says how many statements hold, and both languages agree."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
VERDICTS = {
    "zh": ["成立", "有条件成立", "不成立"],
    "en": ["holds", "holds with a condition", "wrong"],
}
SUMMARY = {
    "zh": r"共 (\d+) 条，成立 (\d+) 条，有条件成立 (\d+) 条，不成立 (\d+) 条",
    "en": r"Of (\d+) statements (\d+) hold, (\d+) hold with a condition, and (\d+) are wrong",
}


def verdicts(language: str, text: str) -> list[int]:
    """Return the verdict of each row of the tables; raise on one that is no verdict."""
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    found = [row[1] for row in rows if row[1] not in ("结论", "verdict")]
    return [VERDICTS[language].index(verdict) for verdict in found]


def page(language: str) -> str:
    """Return the text of the page."""
    return (DOCS / language / "about" / "seed.md").read_text(encoding="utf-8")


def test_counts_in_the_first_paragraph_are_those_of_the_tables():
    for language in VERDICTS:
        told = [int(n) for n in re.search(SUMMARY[language], page(language)).groups()]
        found = verdicts(language, page(language))
        assert told == [len(found), *(found.count(kind) for kind in range(3))], language


def test_both_languages_judge_alike():
    assert verdicts("zh", page("zh")) == verdicts("en", page("en"))


def test_each_row_leads_to_a_proof():
    """Where a row has no link, the paragraph above its table has one."""
    for language in VERDICTS:
        for part in re.split(r"^##+ ", page(language), flags=re.M)[1:]:
            above, _, table = part.partition("\n| ")
            rows = [row for row in table.splitlines() if row.startswith("| ")]
            bare = [row for row in rows if "](../" not in row and "](#" not in row]
            # Of the summary, one row says what its document lacks: nothing to link.
            allowed = 1 if "#summary" in part else 0
            assert "](../" in above or len(bare) <= allowed, f"{language}: {bare}"
