"""Pages as they stand in docs/zh and docs/en: front matter, body, blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml

from docs._tools.guide import LANGUAGES, Guide
from docs._tools.problems import Problem

FENCE = re.compile(r"^(?P<mark>`{3,}|~{3,})(?P<info>[^`]*)$")
OPTION = re.compile(r'(\w[\w-]*)=("[^"]*"|\[[^\]]*\]|[^\s]+)')
HEADING = re.compile(r"^(#{1,6})\s+(?P<text>.*?)(?:\s+\{\s*#(?P<id>[\w-]+)\s*\})?\s*$")
LEVELS = ("intro", "core", "deep", "open")
ORIGINAL, TRANSLATION = LANGUAGES

# kind of page → (keys that must be there, keys that may be there); the type of each.
TYPES: dict[str, type] = {
    "id": str,
    "title": str,
    "description": str,
    "tags": list,
    "sources": list,
    "level": str,
    "evidence": str,
    "packages": list,
    "time_limit": int,
    "order": list,
    "template": str,
    "hide": list,
    "search": dict,
    "translation": dict,
}
ALWAYS = {"id", "title", "description"}
MAY = {"translation", "tags", "sources", "template", "hide", "search"}
KEYS = {
    "index": (ALWAYS, MAY | {"order"}),
    "implementation": (ALWAYS | {"tags", "sources"}, MAY | {"packages", "time_limit"}),
    "comparison": (ALWAYS | {"tags", "sources"}, MAY | {"packages", "time_limit"}),
    "question": (ALWAYS | {"tags", "sources", "level", "evidence"}, MAY | {"packages"}),
    "gallery": (ALWAYS | {"tags"}, MAY),
    "application": (
        ALWAYS | {"tags", "sources", "packages"},
        MAY | {"time_limit"},
    ),
    "plain": (ALWAYS, MAY | {"packages"}),
}
HEADINGS = {
    "implementation": [
        "problem",
        "formula",
        "code",
        "proof",
        "cost",
        "picture?",
        "pitfalls",
        "practice",
    ],
    "question": ["in-one-sentence", "in-full", "evidence", "follow-ups", "pitfalls"],
    "application": ["question", "data", "model", "result", "weights", "limits"],
}
GALLERY = "wrong_about_"  # the stem of a theme's page of wrong answers begins with it
PARTS = {
    "implementations": "implementation",
    "questions": "question",
    "applications": "application",
}


@dataclass(frozen=True)
class Block:
    """A fence, or the prose between two fences."""

    line: int
    lines: tuple[str, ...]
    language: str | None = None
    options: dict[str, str] = field(default_factory=dict)

    @property
    def is_code(self) -> bool:
        """Whether it becomes a cell that runs."""
        return self.language == "python"

    @property
    def tags(self) -> list[str]:
        """The cell's tags."""
        return re.findall(r'"([^"]+)"', self.options.get("tags", ""))

    def option(self, name: str) -> str:
        """Return an option of the fence line without its quotes, or ''."""
        return self.options.get(name, "").strip('"')


@dataclass(frozen=True)
class Page:
    """One Markdown file below docs/zh or docs/en."""

    language: str
    path: Path
    key: str
    text: str

    @cached_property
    def kind(self) -> str:
        """Return what the page is, by where it stands."""
        if self.path.name == "index.md":
            return "index"
        if self.key.startswith("implementations/comparisons/"):
            return "comparison"
        if self.key.startswith("questions/") and self.path.stem.startswith(GALLERY):
            return "gallery"
        if self.key.startswith("questions/") and self.key.count("/") == 1:
            return "plain"  # what lists the questions
        return PARTS.get(self.key.split("/")[0], "plain")

    @cached_property
    def _parts(self) -> tuple[str, str, int]:
        found = re.match(r"---\n(.*?)^---\n", self.text, re.S | re.M)
        if not found:
            return "", self.text, 1
        return (
            found[1],
            self.text[found.end() :],
            self.text[: found.end()].count("\n") + 1,
        )

    @cached_property
    def meta(self) -> dict:
        """The front matter; {} when it cannot be read (a problem says so)."""
        try:
            meta = yaml.safe_load(self._parts[0])
        except yaml.YAMLError:
            return {}
        return meta if isinstance(meta, dict) else {}

    @property
    def body(self) -> str:
        """What follows the front matter."""
        return self._parts[1]

    @property
    def body_line(self) -> int:
        """The line on which the body begins."""
        return self._parts[2]

    @cached_property
    def blocks(self) -> list[Block]:
        """The body as prose and fences, in order."""
        return list(_blocks(self.body, self.body_line))

    @property
    def cells(self) -> list[Block]:
        """The fences that run."""
        return [block for block in self.blocks if block.is_code]

    @cached_property
    def headings(self) -> list[tuple[int, int, str, str | None]]:
        """(line, level, text, id) of each heading."""
        return [
            (line, len(m[1]), m["text"], m["id"])
            for line, text in self.prose_lines()
            if (m := HEADING.match(text))
        ]

    def prose_lines(self) -> Iterator[tuple[int, str]]:
        """Give (line number, text) of what is not in a fence."""
        for block in self.blocks:
            if block.language is None:
                yield from enumerate(block.lines, block.line)

    def section(self, identity: str) -> str:
        """Return the prose below the heading with that id, up to the next of its level."""
        lines, inside = [], False
        for _, line in self.prose_lines():
            heading = HEADING.match(line)
            if heading and len(heading[1]) <= 2:
                inside = heading["id"] == identity
            elif inside:
                lines.append(line)
        return "\n".join(lines).strip()

    def line_of(self, key: str) -> int:
        """Return the line of a front-matter key, else the first line."""
        for number, line in enumerate(self._parts[0].splitlines(), 2):
            if line.startswith(f"{key}:"):
                return number
        return 1

    def problem(self, line: int, what: str, remedy: str) -> Problem:
        """Return a problem of this page."""
        return Problem(self.path, line, what, remedy)


def _blocks(body: str, first: int) -> Iterator[Block]:
    prose: list[str] = []
    start, fence, info, inside = first, None, "", []
    for number, line in enumerate(body.split("\n"), first):
        match = FENCE.match(line)
        if fence is None and match:
            if prose:
                yield Block(start, tuple(prose))
                prose = []
            fence, info, inside, start = (
                match["mark"],
                match["info"].strip(),
                [],
                number,
            )
        elif (
            fence is not None
            and match
            and match["mark"] == fence
            and not match["info"].strip()
        ):
            language, _, rest = info.partition(" ")
            yield Block(start, tuple(inside), language, dict(OPTION.findall(rest)))
            fence, start = None, number + 1
        elif fence is not None:
            inside.append(line)
        else:
            if not prose:
                start = number
            prose.append(line)
    if fence is not None:
        yield Block(start, tuple(inside), "unclosed")
    elif prose:
        yield Block(start, tuple(prose))


def load(guide: Guide) -> dict[str, dict[str, Page]]:
    """Return {key: {language: page}} of all pages, in a stable order."""
    pages: dict[str, dict[str, Page]] = {}
    for language in LANGUAGES:
        folder = guide.docs / language
        for path in sorted(folder.rglob("*.md")):
            key = path.relative_to(folder).with_suffix("").as_posix()
            page = Page(language, path, key, path.read_text("utf-8"))
            pages.setdefault(key, {})[language] = page
    return dict(sorted(pages.items()))


def each(pages: dict[str, dict[str, Page]]) -> Iterator[Page]:
    """Give every page of every language."""
    for pair in pages.values():
        yield from pair.values()
