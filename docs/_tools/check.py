"""Everything that can be said of the sources before anything runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import yaml

from docs._tools import exercises, parity, references
from docs._tools.guide import LANGUAGES, Guide
from docs._tools.includes import Library
from docs._tools.pages import HEADINGS, KEYS, LEVELS, TYPES, Page, each, load
from docs._tools.problems import Problem

PACKAGE = re.compile(r"^[\w.-]+==[\w.]+$")
CELL_TAGS = {"folded", "raises-exception", "solution"}


def check(guide: Guide) -> list[Problem]:
    """Return every problem of the sources of a guide."""
    if problems := list(check_data_files(guide)):
        return problems  # everything else leans on these
    pages = load(guide)
    library = Library.read(guide)
    everyone = list(each(pages))
    problems = list(library.problems)
    for page in everyone:
        problems += check_front_matter(page, guide)
        problems += check_blocks(page, library)
        problems += check_headings(page)
        problems += check_gallery(page)
        problems += references.check_citations(page, guide)
        problems += references.check_glossary(page, guide)
        problems += references.check_links(page, pages, guide)
    problems += references.check_terms(pages, guide)
    problems += check_ids(pages)
    problems += check_order(pages)
    problems += parity.check(pages)
    problems += exercises.check(pages, library, guide)
    practised = exercises.all_of(pages, library, guide, LANGUAGES[0])
    shown = {name for one in practised if one.checks for name in one.shown}
    problems += library.unused(everyone, shown)
    problems += references.check_unused_sources(everyone, guide)
    return sorted(set(problems))


def check_data_files(guide: Guide) -> Iterator[Problem]:
    """Yield what is wrong with tags.yml, sources.yml and glossary.yml themselves."""
    needs = {
        "glossary.yml": {"id", "zh", "en", "note_zh", "note_en", "page"},
        "sources.yml": {"cite", "title", "authors", "year"},
        "tags.yml": {"zh", "en"},
    }
    for name, keys in needs.items():
        path = guide.docs / name
        if not path.exists():
            continue
        try:
            data = yaml.compose(path.read_text("utf-8"))
        except yaml.YAMLError as error:
            line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
            yield Problem(
                path, line, f"cannot be read as YAML: {error.problem}", "correct it"
            )
            continue
        if data is None:
            continue
        seen: set[str] = set()
        for entry in data.value:
            key, node = entry if isinstance(entry, tuple) else (None, entry)
            line = (key or node).start_mark.line + 1
            fields = {k.value: v.value for k, v in node.value}
            if len(fields) < len(node.value):
                yield Problem(
                    path,
                    line,
                    "an entry has a field twice (a merge may have mixed two entries)",
                    "keep one of each",
                )
            name_of = key.value if key is not None else fields.get("id", "?")
            if name_of in seen:
                yield Problem(
                    path, line, f"{name_of!r} stands here twice", "keep one entry"
                )
            seen.add(name_of)
            if missing := keys - set(fields):
                yield Problem(
                    path,
                    line,
                    f"{name_of!r} lacks {', '.join(sorted(missing))}",
                    "add what is missing",
                )
            if name == "sources.yml" and not {"arxiv", "doi", "url"} & set(fields):
                yield Problem(
                    path,
                    line,
                    f"{name_of!r} has no link",
                    "give one of arxiv, doi, url",
                )


def check_front_matter(page: Page, guide: Guide) -> Iterator[Problem]:
    """Yield unknown, missing and mistyped keys, unknown tags and levels."""
    if not page.text.startswith("---\n"):
        yield page.problem(
            1, "the page has no front matter", "begin it with a --- block"
        )
        return
    try:
        meta = yaml.safe_load(page._parts[0])
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 2
        yield page.problem(
            line,
            f"front matter is not YAML: {error.problem}",
            "correct it (a value that holds a colon needs quotes)",
        )
        return
    if not isinstance(meta, dict):
        yield page.problem(
            1, "front matter is not a list of keys", "write `key: value` lines"
        )
        return
    must, may = KEYS[page.kind]
    for key in sorted(must - set(meta)):
        yield page.problem(
            1, f"front matter lacks `{key}`", f"every {page.kind} page has it"
        )
    for key, value in meta.items():
        line = page.line_of(key)
        if key not in must | may:
            known = ", ".join(sorted(must | may))
            yield page.problem(
                line,
                f"unknown front-matter key `{key}`",
                f"a page of kind {page.kind} may have: {known}",
            )
        elif type(value) is not TYPES[key]:
            yield page.problem(
                line,
                f"`{key}` is a {type(value).__name__}",
                f"it must be a {TYPES[key].__name__}",
            )
        elif value in ("", [], {}) and key != "packages":
            yield page.problem(line, f"`{key}` is empty", "give it a value")
    if isinstance(tags := meta.get("tags", []), list):
        for tag in tags:
            if tag not in guide.tags:
                yield page.problem(
                    page.line_of("tags"),
                    f"unknown tag {tag!r}",
                    f"take one of {', '.join(guide.tags)}",
                )
    if isinstance(meta.get("level"), str) and meta["level"] not in LEVELS:
        yield page.problem(
            page.line_of("level"),
            f"unknown level {meta['level']!r}",
            f"take one of {', '.join(LEVELS)}",
        )
    if (
        isinstance(evidence := meta.get("evidence"), str)
        and not (guide.root / evidence).is_file()
    ):
        yield page.problem(
            page.line_of("evidence"),
            f"evidence {evidence!r} does not exist",
            "name a file below snippets/questions/",
        )
    if isinstance(packages := meta.get("packages"), list):
        for package in packages:
            if not PACKAGE.match(str(package)):
                yield page.problem(
                    page.line_of("packages"),
                    f"package {package!r} has no pin",
                    "write name==version",
                )
    if isinstance(identity := meta.get("id"), str):
        folder = page.key.removesuffix("/index").replace("/", "-")
        stem = folder if page.kind == "index" else page.key.split("/")[-1]
        stem = "home" if page.key == "index" else stem
        if identity != stem:
            yield page.problem(
                page.line_of("id"),
                f"id {identity!r} is not the file's name",
                f"write `id: {stem}`",
            )


def check_blocks(page: Page, library: Library) -> Iterator[Problem]:
    """Yield unclosed fences, wrong includes and wrong options of cells."""
    for block in page.blocks:
        if block.language == "unclosed":
            yield page.problem(
                block.line,
                "this fence is never closed",
                "close it with a line of as many backticks",
            )
        if not block.is_code:
            continue
        code, problems = library.cell(page, block)
        yield from problems
        if not code and not problems:
            yield page.problem(
                block.line, "this cell is empty", "include a section or remove it"
            )
        for tag in block.tags:
            if tag not in CELL_TAGS:
                yield page.problem(
                    block.line,
                    f"unknown cell tag {tag!r}",
                    f"take one of {', '.join(sorted(CELL_TAGS))}",
                )
        for option in block.options:
            if option not in {"tags", "alt", "raises"}:
                yield page.problem(
                    block.line,
                    f"unknown cell option {option!r}",
                    "take one of tags, alt, raises",
                )
        if ("raises-exception" in block.tags) != bool(block.option("raises")):
            yield page.problem(
                block.line,
                "a cell that must fail says so and says how",
                'write ```python tags=["raises-exception"] raises="ValueError"',
            )


def check_headings(page: Page) -> Iterator[Problem]:
    """Yield headings without id, ids twice, H1s, and parts missing or out of order."""
    seen: set[str] = set()
    for line, level, text, identity in page.headings:
        if level == 1:
            yield page.problem(
                line,
                f"a first-level heading: {text!r}",
                "the title stands in the front matter; begin with ##",
            )
        if identity is None:
            yield page.problem(
                line,
                f"the heading {text!r} has no id",
                "write `## … { #id }`, the same id in both languages",
            )
        elif identity in seen or identity == "sources":
            yield page.problem(
                line, f"the heading id {identity!r} is taken", "choose another"
            )
        seen.add(identity or "")
    wanted = HEADINGS.get(page.kind, [])
    found = [identity for _, level, _, identity in page.headings if level == 2]
    for part in wanted:
        if not part.endswith("?") and part not in found:
            yield page.problem(
                page.body_line,
                f"the section `#{part}` is missing",
                f"a page of kind {page.kind} has: {', '.join(wanted)}",
            )
    known = [w.rstrip("?") for w in wanted]
    places = [known.index(identity) for identity in found if identity in known]
    if places != sorted(places):
        yield page.problem(
            page.body_line,
            "the sections stand in another order",
            f"the order is: {', '.join(known)}",
        )


def check_gallery(page: Page) -> Iterator[Problem]:
    """Yield wrong answers that no cell refutes or that lead to no question."""
    if page.kind != "gallery":
        return
    claims = [(line, text) for line, level, text, _ in page.headings if level == 2]
    ends = [line for line, _ in claims[1:]] + [sys.maxsize]
    for (line, text), end in zip(claims, ends, strict=True):
        if not any(line < cell.line < end for cell in page.cells):
            yield page.problem(
                line,
                f"no cell refutes the claim {text!r}",
                "include the section of the question that does",
            )
        links = (target for at, target in references.links_of(page) if line < at < end)
        if not any(re.match(r"(\.\./\w+/)?\w+\.md", target) for target in links):
            yield page.problem(
                line,
                f"the claim {text!r} leads to no question",
                "link the question page that it belongs to",
            )


def check_ids(pages: dict) -> Iterator[Problem]:
    """Yield ids that two pages share."""
    for language in LANGUAGES:
        seen: dict[str, Page] = {}
        for pair in pages.values():
            if (page := pair.get(language)) is None:
                continue
            identity = str(page.meta.get("id"))
            if identity in seen and identity != "None":
                other = seen[identity].path.name
                yield page.problem(
                    page.line_of("id"),
                    f"id {identity!r} is taken by {other}",
                    "rename one of the two files",
                )
            seen[identity] = page


def check_order(pages: dict) -> Iterator[Problem]:
    """Yield entries of `order:` that name nothing, and pages that no `order:` names."""
    for pair in pages.values():
        for page in pair.values():
            if page.kind != "index":
                if f"{page.key.rpartition('/')[0]}/index".lstrip("/") not in pages:
                    yield page.problem(
                        1,
                        "its folder has no index.md",
                        "add one in each language, with `order:`",
                    )
                continue
            folder = page.key.removesuffix("index")
            children = {
                rest.removesuffix("/index").split("/")[0]
                for key in pages
                if key.startswith(folder) and (rest := key[len(folder) :]) != "index"
            }
            order = page.meta.get("order") or []
            for name in order:
                if name not in children:
                    yield page.problem(
                        page.line_of("order"),
                        f"order names {name!r}, which is not here",
                        "correct or remove it",
                    )
            for name in sorted(children - set(order)):
                if name not in {"404"}:
                    yield page.problem(
                        page.line_of("order"),
                        f"order does not name {name!r}",
                        "add it where readers should meet it",
                    )
