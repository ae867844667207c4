"""The two languages of a page say the same: what can be compared is compared."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from docs._tools.guide import LANGUAGES, Guide
from docs._tools.includes import includes
from docs._tools.pages import Page, load
from docs._tools.problems import Problem, Stop
from docs._tools.references import links_of

NEUTRAL_EXCEPT = {"title", "description", "translation"}
CALLOUT = re.compile(r"^>\s*\[!(\w+)\]")
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\$])\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\d)", re.S)
INLINE_CODE = re.compile(r"`[^`\n]+`")


def body_hash(page: Page) -> str:
    """Return twelve hex digits that change with the title, description or body."""
    said = f"{page.meta.get('title')}\n{page.meta.get('description')}\n{page.body}"
    return hashlib.sha256(said.encode()).hexdigest()[:12]


def check(pages: dict[str, dict[str, Page]]) -> Iterator[Problem]:
    """Yield every difference between the two languages of each page."""
    for key, pair in pages.items():
        if set(pair) != set(LANGUAGES):
            (page,) = pair.values()
            (other,) = set(LANGUAGES) - set(pair)
            yield page.problem(
                1,
                f"the page exists in {page.language} only",
                f"write docs/{other}/{key}.md; `make new` makes a skeleton",
            )
            continue
        yield from _check_pair(*(pair[language] for language in LANGUAGES))


def _check_pair(zh: Page, en: Page) -> Iterator[Problem]:
    yield from _check_stamp(zh, en)
    for name in sorted((set(zh.meta) | set(en.meta)) - NEUTRAL_EXCEPT):
        if zh.meta.get(name) != en.meta.get(name):
            yield en.problem(
                en.line_of(name),
                f"`{name}` differs from the other language's",
                "only title, description and translation may differ",
            )
    pairs = [
        (
            "heading ids",
            [(n, i) for _, n, _, i in zh.headings],
            [(n, i) for _, n, _, i in en.headings],
            [h[0] for h in en.headings],
        ),
        (
            "cells",
            [_cell(b) for b in zh.cells],
            [_cell(b) for b in en.cells],
            [b.line for b in en.cells],
        ),
        ("callouts", *_found(zh, en, _callouts)),
        ("formulas", *_found(zh, en, formulas)),
        ("links", *_found(zh, en, lambda p: [(n, t) for n, t in links_of(p)])),
    ]
    for what, ours, theirs, lines in pairs:
        if what == "links":
            ours, theirs = sorted(ours), sorted(theirs)
        if ours != theirs:
            at = next(
                (
                    i
                    for i, (a, b) in enumerate(zip(ours, theirs, strict=False))
                    if a != b
                ),
                min(len(ours), len(theirs)),
            )
            line = (
                lines[min(at, len(lines) - 1)]
                if lines and what != "links"
                else en.body_line
            )
            yield en.problem(
                line,
                f"{what} differ between the languages: number {at + 1} is "
                f"{_show(ours, at)} in zh and {_show(theirs, at)} in en",
                "make the two pages agree",
            )


def _show(items: list, at: int) -> str:
    return repr(items[at]) if at < len(items) else "missing"


def _cell(block) -> tuple:
    return (
        *includes(block),
        tuple(block.tags),
        block.option("raises"),
        bool(block.option("alt")),
    )


def _found(zh: Page, en: Page, find) -> tuple[list, list, list[int]]:
    ours, theirs = find(zh), find(en)
    return [x for _, x in ours], [x for _, x in theirs], [n for n, _ in theirs]


def _callouts(page: Page) -> list[tuple[int, str]]:
    return [(n, m[1]) for n, line in page.prose_lines() if (m := CALLOUT.match(line))]


def formulas(page: Page) -> list[tuple[int, str]]:
    """Return (line, LaTeX) of each formula of a page."""
    found = []
    for block in page.blocks:
        if block.language is None:
            text = INLINE_CODE.sub(lambda m: " " * len(m[0]), "\n".join(block.lines))
            for match in FORMULA.finditer(text):
                line = block.line + text[: match.start()].count("\n")
                found.append((line, (match[1] or match[2]).strip()))
    return found


def _check_stamp(zh: Page, en: Page) -> Iterator[Problem]:
    translated = [page for page in (zh, en) if "translation" in page.meta]
    if len(translated) != 1:
        yield en.problem(
            1,
            f"{len(translated)} of the two pages say they are the translation",
            "exactly one has `translation: {of: …, at: …}`",
        )
        return
    (page,) = translated
    original = zh if page is en else en
    stamp, line = page.meta["translation"], page.line_of("translation")
    if not isinstance(stamp, dict) or not {"of", "at"} <= set(stamp) <= {
        "of",
        "at",
        "stale",
    }:
        yield page.problem(
            line,
            "`translation` is not {of, at} or {of, at, stale}",
            f"write `translation: {{of: {original.language}, at: …}}`",
        )
    elif stamp["of"] != original.language:
        yield page.problem(
            line, f"`of` is {stamp['of']!r}", f"write {original.language}"
        )
    elif str(stamp["at"]) != body_hash(original) and stamp.get("stale") is not True:
        yield page.problem(
            line,
            f"this translation is behind its original, docs/{original.language}/"
            f"{original.key}.md, which has changed since",
            f"bring it up to date and run `make stamp P={page.key}`, or add "
            "`stale: true` to `translation` and let somebody else do it",
        )


def stamp(page: Page, original: Page) -> None:
    """Write into a translation that it renders the original as it stands now."""
    fresh = f"translation: {{of: {original.language}, at: {body_hash(original)}}}"
    head, _, rest = page.text.partition("\n---\n")
    head = re.sub(r"^translation:.*$", fresh, head, count=1, flags=re.M)
    page.path.write_text(f"{head}\n---\n{rest}", "utf-8")


def stamp_keys(guide: Guide, keys: list[str]) -> None:
    """Stamp the pages named, or, when none is named, those that were never stamped."""
    pages = load(guide)
    if unknown := [key for key in keys if len(pages.get(key, {})) != len(LANGUAGES)]:
        raise Stop(
            f"no page in both languages is called {', '.join(unknown)}; a key looks "
            "like questions/basics/what_is_attention"
        )
    for key, pair in pages.items():
        for page in pair.values():
            mark = page.meta.get("translation")
            if (
                len(pair) == len(LANGUAGES)
                and isinstance(mark, dict)
                and (key in keys or (not keys and mark.get("at") == "stamp-me"))
            ):
                stamp(page, pair[mark["of"]])
                print(f"stamped docs/{page.language}/{key}.md")
