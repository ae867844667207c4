"""What a page points to: sources, other pages, agreed terms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from posixpath import normpath
from urllib.parse import unquote

from docs._tools.guide import Guide
from docs._tools.pages import Page
from docs._tools.problems import Problem

CITATION = re.compile(r"\[@(?P<key>[\w:-]+)(?:,\s*(?P<place>[^\]]+))?\]")
LINK = re.compile(
    r"(?<!\\)(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)"
)
GLOSS = re.compile(r"(?<=[\u3400-\u9fff]) ?\((?P<en>[A-Za-z][A-Za-z -]+)\)")
INLINE = re.compile(r"`[^`\n]+`|\$[^$\n]+\$")
WORDS = {"zh": "出处", "en": "Sources"}


def prose_of(page: Page) -> Iterator[tuple[int, str]]:
    """Give each line of prose with inline code and formulas blanked."""
    for number, line in page.prose_lines():
        yield number, INLINE.sub(lambda m: " " * len(m[0]), line)


def links_of(page: Page) -> list[tuple[int, str]]:
    """Return (line, target) of each link and image."""
    return [
        (number, match["target"])
        for number, line in prose_of(page)
        for match in LINK.finditer(line)
    ]


def check_citations(page: Page, guide: Guide) -> Iterator[Problem]:
    """Yield citations that are not listed, and listed sources that are not cited."""
    listed = page.meta.get("sources") or []
    if not isinstance(listed, list):
        return
    cited: dict[str, int] = {}
    for number, line in prose_of(page):
        for match in CITATION.finditer(line):
            cited.setdefault(match["key"], number)
    for key in listed:
        if key not in guide.sources:
            yield page.problem(
                page.line_of("sources"),
                f"unknown source {key!r}",
                "add it to docs/sources.yml",
            )
        elif key not in cited:
            yield page.problem(
                page.line_of("sources"),
                f"source {key!r} is listed, not cited",
                f"cite it in the text as [@{key}] or remove it",
            )
    for key, line in cited.items():
        if key not in listed:
            yield page.problem(
                line,
                f"source {key!r} is cited, not listed",
                "add it to `sources:` in the front matter",
            )


def check_unused_sources(pages: Iterable[Page], guide: Guide) -> Iterator[Problem]:
    """Yield entries of sources.yml that no page lists."""
    used = {key for page in pages for key in page.meta.get("sources") or []}
    path = guide.docs / "sources.yml"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        if (match := re.match(r"^([\w-]+):", line)) and match[1] not in used:
            yield Problem(
                path, number, f"source {match[1]!r} is cited by no page", "remove it"
            )


def check_glossary(page: Page, guide: Guide) -> Iterator[Problem]:
    """Yield terms rendered otherwise than the glossary agrees."""
    if page.meta.get("id") == "glossary":
        return
    terms = sorted((t[page.language].lower() for t in guide.glossary), key=len)
    agreed = re.compile("|".join(map(re.escape, reversed(terms))))
    for number, line in [
        (page.line_of(k), str(page.meta.get(k, ""))) for k in ("title", "description")
    ] + list(prose_of(page)):
        # 组查询注意力 is to be avoided and stands inside 分组查询注意力, which is agreed.
        rest = agreed.sub(" ", line.lower())
        for term in guide.glossary:
            for wrong in term.get(f"avoid_{page.language}", []):
                if wrong.lower() in rest:
                    yield page.problem(
                        number,
                        f"{wrong!r} is not the agreed term",
                        f"write {term[page.language]!r} (docs/glossary.yml, {term['id']})",
                    )


def check_terms(pages: dict, guide: Guide) -> Iterator[Problem]:
    """Yield terms whose page does not exist, and terms that a page glosses otherwise.

    A Chinese page introduces a term as 中文 (English): the two must be those agreed.
    English that begins with a capital may be a name instead.
    """
    path = guide.docs / "glossary.yml"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    for term in guide.glossary:
        number = next(n for n, x in enumerate(lines, 1) if f"id: {term['id']}," in x)
        if term["page"] not in pages:
            yield Problem(
                path,
                number,
                f"{term['id']!r} is defined on {term['page']!r}, which does not exist",
                "name the page that explains the term, without language and ending",
            )
            continue
        for language, page in pages[term["page"]].items():
            if term[language].lower() not in page.text.lower():
                yield Problem(
                    path,
                    number,
                    f"{page.path.name} does not say {term[language]!r} ({language})",
                    "name the page that explains the term, or explain it there",
                )
    agreed = {
        name.lower(): term
        for term in guide.glossary
        for name in (term["en"], *term.get("also", []))
    }
    for pair in pages.values():
        page = pair.get("zh")
        for number, line in prose_of(page) if page else ():
            for match in GLOSS.finditer(line):
                term = agreed.get(match["en"].lower())
                before = line[: match.start()]
                if not term and match["en"][0].islower():
                    yield page.problem(
                        number,
                        f"{before[-6:] + match[0]!r} introduces a term that is not in "
                        "docs/glossary.yml",
                        "add it there; if it is no term, write （ ）",
                    )
                if term and not before.endswith(term["zh"]):
                    yield page.problem(
                        number,
                        f"{before[-6:] + match[0]!r} is not the agreed term",
                        f"write {term['zh']} ({term['en']}) "
                        f"(docs/glossary.yml, {term['id']})",
                    )


def check_links(page: Page, pages: dict, guide: Guide) -> Iterator[Problem]:
    """Yield relative links, anchors and images that lead nowhere."""
    for number, target in links_of(page):
        if re.match(r"^[a-z][a-z0-9+.-]*:", target):
            if target.startswith("http://"):
                yield page.problem(
                    number, f"{target} is not https", "link the https address"
                )
            elif re.match(r"https://(www\.)?arxiv\.org/", target):
                yield page.problem(
                    number,
                    f"{target} is a paper linked by hand",
                    "enter it in docs/sources.yml and cite it as [@key]",
                )
            continue
        path, _, anchor = unquote(target).partition("#")
        if target.startswith("/"):
            yield page.problem(
                number,
                f"the link {target!r} is absolute",
                "write it relative to this file",
            )
            continue
        key = normpath(
            f"{page.key.rpartition('/')[0]}/{path}" if path else f"{page.key}.md"
        )
        key = key.lstrip("/")
        if not key.endswith(".md"):
            if not (page.path.parent / path).exists():
                yield page.problem(
                    number, f"{target!r} does not exist", "correct the link"
                )
            continue
        other = pages.get(key[:-3], {}).get(page.language)
        if other is None:
            yield page.problem(
                number,
                f"the link {target!r} leads nowhere",
                f"there is no docs/{page.language}/{key}",
            )
        elif anchor and anchor not in anchors(other):
            known = ", ".join(sorted(anchors(other)))
            yield page.problem(
                number,
                f"the page has no anchor #{anchor}: {target!r}",
                f"its anchors are: {known}",
            )


def anchors(page: Page) -> set[str]:
    """Return the ids that a page will have."""
    ids = {identity for *_, identity in page.headings if identity}
    return ids | ({"sources"} if page.meta.get("sources") else set())


def link_to(source: dict) -> str:
    """Return the address of a source."""
    if "arxiv" in source:
        return f"https://arxiv.org/abs/{source['arxiv']}"
    return f"https://doi.org/{source['doi']}" if "doi" in source else source["url"]


def cite(text: str, guide: Guide) -> str:
    """Turn [@key, place] into a link with the source's short form."""

    def linked(match: re.Match) -> str:
        source = guide.sources.get(match["key"])
        if source is None:
            return match[0]
        place = f", {match['place']}" if match["place"] else ""
        return f"[{source['cite']}{place}]({link_to(source)})"

    return CITATION.sub(linked, text)


def source_list(page: Page, guide: Guide) -> str:
    """Return the list of sources at the foot of a page as Markdown, or ''."""
    keys = [key for key in page.meta.get("sources") or [] if key in guide.sources]
    if not keys:
        return ""
    lines = [f"\n\n## {WORDS[page.language]} {{ #sources }}\n"]
    for key in keys:
        s = guide.sources[key]
        venue = f" {s['venue']}." if s.get("venue") else ""
        lines.append(
            f"- {s['authors']}. *{s['title']}*. {s['year']}.{venue} <{link_to(s)}>"
        )
    return "\n".join(lines) + "\n"
