"""A whole guide in an empty folder: one page in two languages, ready to be broken."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from docs._tools.guide import Guide
from docs._tools.parity import stamp_keys
from docs._tools.problems import ROOT, Problem

SNIPPET = """\
# --8<-- [start:imports]
import torch

# --8<-- [end:imports]


# --8<-- [start:mean]
def mean(x_TD):
    return x_TD.mean(0)


# --8<-- [end:mean]

if __name__ == "__main__":
    # --8<-- [start:demo]
    print("mean", mean(torch.tensor([[1.0], [3.0]])).item())
    # --8<-- [end:demo]
"""
TEST = """\
# --8<-- [start:is-mean]
def test_is_mean():
    assert mean(torch.ones(2, 1)).item() == 1
    print("it is the mean")


# --8<-- [end:is-mean]
"""
PAGE = """\
---
id: mean
title: {title}
description: {description}
tags: [basics]
sources: [vaswani2017]
{translation}---

## {problem} {{ #problem }}

{text} [@vaswani2017, §3].

> [!NOTE]
> {text}

## {formula} {{ #formula }}

$$
\\bar{{x}} = \\frac{{1}}{{T}} \\sum_t x_t
$$

## {code} {{ #code }}

```python
--8<-- "snippets/room/mean.py:imports"
```

```python tags=["solution"]
--8<-- "snippets/room/mean.py:mean"
```

```python
--8<-- "snippets/room/mean.py:demo"
```

## {proof} {{ #proof }}

```python
--8<-- "tests/room/test_mean.py:is-mean"
```

## {cost} {{ #cost }}

[{text}](#formula)

## {pitfalls} {{ #pitfalls }}

{text}

## {practice} {{ #practice }}

{text}

> [!TIP]
> {text}
"""
CHECKS = """\
from snippets.properties.judge import check
from snippets.properties.kit import agreement

# isort: split
# --8<-- [start:checks]
@check(en="It is the mean", zh="是平均")
def average(attempt, draw):
    x = draw.normal(draw.size("T", 1, 3), 2)
    agreement(attempt.mean(x), sum(x) / len(x))


CHECKS = [average]


def workload(attempt):
    x = torch.ones(4, 4)
    return lambda: attempt.mean(x)


# --8<-- [end:checks]
"""
BUGS = """\
- name: sum
  en: The sum.
  zh: 是和。
  caught_by: average
  real: https://github.com/owner/name/issues/7
  swap:
    - ["x_TD.mean(0)", "x_TD.sum(0)"]
- {name: wrong-axis, en: Axis., zh: 轴错。, caught_by: average, swap: [["mean(0)", "mean(1)"]]}
- {name: largest, en: Largest., zh: 最大。, caught_by: average, swap: [["mean(0)", "amax(0)"]]}
- name: first
  en: First.
  zh: 第一个。
  caught_by: average
  code: |
    def mean(x_TD):
        return x_TD[0]
"""
WORDS = {
    "zh": {
        "title": "平均",
        "description": "求平均，没有掩码。",
        "problem": "问题",
        "text": "说明。",
        "formula": "公式",
        "code": "代码",
        "proof": "证明",
        "cost": "代价",
        "pitfalls": "易错点",
        "practice": "练习",
        "translation": "",
    },
    "en": {
        "title": "Mean",
        "description": "Takes the mean, without a mask.",
        "problem": "Problem",
        "text": "Words.",
        "formula": "Formula",
        "code": "Code",
        "proof": "Proof",
        "cost": "Cost",
        "pitfalls": "Pitfalls",
        "practice": "Practice",
        "translation": "translation: {of: zh, at: stamp-me}\n",
    },
}
INDEXES = {
    "": ("home", "implementations"),
    "implementations/": ("implementations", "room"),
    "implementations/room/": ("implementations-room", "mean"),
}
KEY = "implementations/room/mean"


@dataclass(frozen=True)
class Fixture:
    """A guide that can be edited."""

    guide: Guide

    def path(self, language: str, key: str = KEY) -> Path:
        """Return the file of a page."""
        return self.guide.docs / language / f"{key}.md"

    @property
    def snippet(self) -> Path:
        """The only snippet."""
        return self.guide.root / "snippets/room/mean.py"

    def edit(self, path: Path, old: str, new: str) -> None:
        """Replace a text that must be there."""
        text = path.read_text("utf-8")
        assert old in text, f"{old!r} is not in {path}"
        path.write_text(text.replace(old, new, 1), "utf-8")

    def edit_both(self, old: str, new: str) -> None:
        """Replace in both languages, then stamp."""
        for language in ("zh", "en"):
            self.edit(self.path(language), old, new)
        stamp_keys(self.guide, [KEY])


def write_guide(root: Path) -> Fixture:
    """Write a guide with one page that has no problem."""
    fixture = Fixture(Guide(root))
    for path, text in {
        "snippets/room/mean.py": SNIPPET,
        "tests/room/test_mean.py": TEST,
        "tests/room/exercise_mean.py": CHECKS,
        "tests/room/bugs_mean.yml": BUGS,
        "docs/tags.yml": "basics: {zh: 基础, en: Basics}\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, "utf-8")
    shutil.copytree(
        ROOT / "snippets/properties",
        root / "snippets/properties",
        ignore=shutil.ignore_patterns("__pycache__", "error_budget.py"),
    )
    (root / "docs/glossary.yml").write_text(
        "- {id: mask, zh: 掩码, en: mask, note_zh: 布尔。, note_en: Boolean., "
        "page: implementations/room/mean, avoid_zh: [遮罩], avoid_en: [masque]}\n",
        "utf-8",
    )
    (root / "docs/sources.yml").write_text(
        "vaswani2017:\n  cite: Vaswani et al. 2017\n  title: Attention Is All You Need\n"
        "  authors: Ashish Vaswani and others\n  year: 2017\n  arxiv: '1706.03762'\n",
        "utf-8",
    )
    for language, words in WORDS.items():
        for folder, (identity, child) in INDEXES.items():
            path = fixture.path(language, f"{folder}index")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                f"---\nid: {identity}\ntitle: {identity} {language}\ndescription: "
                f"{identity} {language}\norder: [{child}]\n{words['translation']}---\n\n"
                "words\n",
                "utf-8",
            )
        fixture.path(language).write_text(PAGE.format(**words), "utf-8")
    stamp_keys(fixture.guide, [])
    return fixture


@pytest.fixture
def guide(fixture: Fixture) -> Guide:
    """The guide of `fixture`."""
    return fixture.guide


@pytest.fixture
def fixture(tmp_path: Path) -> Fixture:
    """Give a guide in an empty folder."""
    return write_guide(tmp_path)


@pytest.fixture
def site_fixture(fixture: Fixture) -> Fixture:
    """Give a guide that can be built: with the project's configuration and theme."""
    root = fixture.guide.root
    for name in ("mkdocs.yml", "mkdocs.en.yml"):
        shutil.copy(ROOT / name, root / name)
    for name in ("_tools", "_theme"):
        (root / "docs" / name).symlink_to(ROOT / "docs" / name)
    return fixture


def told(problems: list[Problem], *words: str) -> Problem:
    """Return the one problem that has all these words; fail when there is none."""
    found = [p for p in problems if all(word in str(p) for word in words)]
    shown = "\n".join(map(str, problems)) or "no problem at all"
    assert found, f"nothing says {words}; what was said:\n{shown}"
    assert found[0].line >= 1
    assert found[0].remedy
    return found[0]
