"""The question bank as a whole: themes, table, wrong answers, cards, pages to print."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from posixpath import normpath, relpath

import markdown

from docs._tools import references
from docs._tools.guide import Guide
from docs._tools.pages import HEADING, LEVELS, Page

PRINTED = ("in-full", "follow-ups", "pitfalls")
WORDS = {
    "zh": {
        "columns": ("问题", "主题", "级别", "标签"),
        "levels": dict(zip(LEVELS, ("入门", "核心", "深入", "未决"), strict=True)),
        "total": "共 {} 题，分 {} 个主题。每题都有会运行的证据和出处。",
        "claims": "共 {} 条，每条都有一段代码反驳。",
        "wrong": "说错的话",
        "print": "打印本主题",
        "pdf": "下载整个题库的 PDF",
        "printed": "打印版：",
        "note": "证据代码和运行结果在网页上：",
        "whole": "看全文与证据",
        "short": "一句话",
        "stop": "。",
    },
    "en": {
        "columns": ("Question", "Theme", "Level", "Tags"),
        "levels": dict(zip(LEVELS, ("Intro", "Core", "Deep", "Open"), strict=True)),
        "total": "{} questions in {} themes. Each has evidence that runs, and sources.",
        "claims": "{} claims, each refuted by code.",
        "wrong": "What is told wrongly",
        "print": "Print this theme",
        "pdf": "Download the whole bank as PDF",
        "printed": "For printing: ",
        "note": "Evidence and what it printed stand on the site: ",
        "whole": "In full, with evidence",
        "short": "In one sentence",
        "stop": ".",
    },
}


@dataclass(frozen=True)
class Theme:
    """One folder of questions, in reading order."""

    index: Page
    questions: tuple[Page, ...]
    gallery: Page | None

    @property
    def room(self) -> str:
        """The folder's name."""
        return self.index.key.split("/")[1]

    @property
    def title(self) -> str:
        """The theme as readers see it."""
        return self.index.meta["title"]


def themes(pages: dict[str, Page]) -> list[Theme]:
    """Return the themes of one language's pages that hold a question."""
    found = []
    top = pages.get("questions/index")
    for room in top.meta.get("order", []) if top else []:
        index = pages.get(f"questions/{room}/index")
        if index is None:
            continue
        here = [
            pages[key]
            for stem in index.meta.get("order", [])
            if (key := f"questions/{room}/{stem}") in pages
        ]
        questions = tuple(page for page in here if page.kind == "question")
        galleries = [page for page in here if page.kind == "gallery"]
        if questions:
            found.append(Theme(index, questions, galleries[0] if galleries else None))
    return found


def of_theme(page: Page, pages: dict[str, Page]) -> str:
    """Return the list of a theme's questions, below its index page's text."""
    theme = next((t for t in themes(pages) if t.index.key == page.key), None)
    if theme is None:
        return ""
    words = WORDS[page.language]
    lines = [""]
    for number, question in enumerate(theme.questions, 1):
        stem, meta = question.key.split("/")[-1], question.meta
        level = words["levels"].get(meta.get("level"), "")
        lines.append(f"{number}. [{meta['title']}]({stem}.md) · {level}\n")
        lines.append(f"    {meta['description']}\n")
    links = [f"[{words['print']}](print.md)"]
    if theme.gallery:
        stem = theme.gallery.key.split("/")[-1]
        links.insert(0, f"[{theme.gallery.meta['title']}]({stem}.md)")
    return "\n".join([*lines, " · ".join(links), ""])


def table(page: Page, pages: dict[str, Page], guide: Guide) -> str:
    """Return all questions as an HTML table whose rows say what a filter needs."""
    words, found = WORDS[page.language], themes(pages)
    rows = [f"<th>{escape(head)}</th>" for head in words["columns"]]
    lines = [f"<thead><tr>{''.join(rows)}</tr></thead>", "<tbody>"]
    for theme in found:
        for question in theme.questions:
            meta = question.meta
            tags = [t for t in meta.get("tags", []) if t in guide.tags]
            about = {
                "id": meta["id"],
                "theme": theme.room,
                "level": meta.get("level", ""),
                "tags": " ".join(tags),
            }
            data = "".join(f' data-{k}="{escape(v)}"' for k, v in about.items())
            shown = words["levels"].get(meta.get("level"), "")
            names = " · ".join(guide.tags[tag][page.language] for tag in tags)
            link = f'<a href="../{_below(question)}/">{inline(meta["title"])}</a>'
            cells = (link, escape(theme.title), shown, escape(names))
            lines.append(
                f"<tr{data}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
            )
    total = sum(len(theme.questions) for theme in found)
    head = words["total"].format(total, len(found))
    body = "\n".join(["<table>", *lines, "</tbody>", "</table>"])
    return f'\n{head}\n\n<div id="all-questions">\n{body}\n</div>\n'


def claims(page: Page, pages: dict[str, Page], guide: Guide) -> str:
    """Return what is told wrongly, theme by theme, each leading to its refutation."""
    words, parts, number = WORDS[page.language], [], 0
    for theme in themes(pages):
        if theme.gallery is None:
            continue
        target = f"{_below(theme.gallery)}.md"
        parts.append(f"\n## {theme.title} {{ #{theme.room} }}\n")
        for _, level, text, identity in theme.gallery.headings:
            if level == 2 and identity:
                number += 1
                parts.append(f"- [{text}]({target}#{identity})")
    return "\n".join(["", words["claims"].format(number), *parts, ""])


def cards(page: Page, pages: dict[str, Page], guide: Guide) -> str:
    """Return every question with its short answer, folded."""
    words, parts = WORDS[page.language], []
    for theme in themes(pages):
        parts.append(f'<h2 id="{theme.room}">{escape(theme.title)}</h2>')
        for question in theme.questions:
            meta = question.meta
            answer = fragment(
                question.section("in-one-sentence"),
                guide,
                lambda target, question=question: _site_link(
                    target, question, "questions"
                ),
            )
            parts.append(
                f'<details class="g-card" data-id="{meta["id"]}" '
                f'data-theme="{theme.room}" data-level="{meta.get("level", "")}">'
                f"<summary>{inline(meta['title'])}</summary>"
                f'<div>{answer}<p><a href="../{_below(question)}/">{words["whole"]}</a>'
                "</p></div></details>"
            )
    return '\n<div id="cards">\n' + "\n".join(parts) + "\n</div>\n"


def printable(theme: Theme, guide: Guide, site_url: str) -> str:
    """Return a whole theme as one Markdown page, without code and outputs."""
    language = theme.index.language
    words = WORDS[language]
    address = f"{site_url}{'' if language == 'zh' else 'en/'}questions/{theme.room}/"
    parts = [
        f"---\ntitle: {json.dumps(words['printed'] + theme.title, ensure_ascii=False)}\n"
        f"description: {json.dumps(theme.index.meta['description'], ensure_ascii=False)}\n"
        "hide: [toc]\nsearch: {exclude: true}\n---\n",
        f"{words['note']}<{address}>\n",
    ]
    cited: dict[str, None] = {}
    for question in theme.questions:
        stem = question.key.split("/")[-1]
        cited |= dict.fromkeys(question.meta.get("sources") or [])
        parts.append(f"## {question.meta['title']} {{ #{stem} }}\n")
        short = _local(question.section("in-one-sentence"), stem)
        parts.append("\n".join(f"> {line}" for line in short.split("\n")) + "\n")
        for name in PRINTED:
            head = next(
                t for _, _, t, identity in question.headings if identity == name
            )
            parts.append(f"### {head} {{ #{stem}-{name} }}\n")
            parts.append(_local(question.section(name), stem) + "\n")
    whole = references.cite("\n".join(parts), guide)
    listed = Page(language, theme.index.path, theme.index.key, "")
    listed.__dict__["meta"] = {
        "sources": [key for key in cited if key in guide.sources]
    }
    return whole + references.source_list(listed, guide)


def pdf_link(language: str) -> str:
    """Return the link to the PDF of the whole bank."""
    name = f"attention-guide-{language}.pdf"
    return f'\n<p><a href="../../{name}" download>{WORDS[language]["pdf"]}</a></p>\n'


# id of a page that lists questions → what makes the list.
LISTS = {"all_questions": table, "wrong_answers": claims, "cards": cards}


def fragment(text: str, guide: Guide, link: Callable[[str], str]) -> str:
    """Return Markdown of a page as HTML for another place; `link` moves its links."""
    text = references.LINK.sub(
        lambda m: f"{m['image']}[{m['text']}]({link(m['target'])})",
        references.cite(text, guide),
    )
    return markdown.markdown(
        text,
        extensions=[
            "attr_list",
            "tables",
            "github-callouts",
            "pymdownx.arithmatex",
            "pymdownx.superfences",
        ],
        extension_configs={"pymdownx.arithmatex": {"generic": True}},
    )


def inline(title: str) -> str:
    """Return a title's Markdown as HTML: code and formulas, no paragraph."""
    made = markdown.markdown(
        title,
        extensions=["pymdownx.arithmatex"],
        extension_configs={"pymdownx.arithmatex": {"generic": True}},
    )
    return re.sub(r"^<p>|</p>$", "", made)


def _below(page: Page) -> str:
    """Return a question's key below questions/."""
    return page.key.removeprefix("questions/")


def _site_link(target: str, page: Page, folder: str) -> str:
    """Return a page's link as an address that works on a page one level below `folder`."""
    path, _, anchor = target.partition("#")
    if ":" in target:
        return target
    anchor = f"#{anchor}" if anchor else ""
    here = page.key.rpartition("/")[0]
    key = normpath(f"{here}/{path}") if path else f"{page.key}.md"
    key = key.removesuffix(".md").removesuffix("index").rstrip("/")
    return f"../{relpath(key, folder)}/{anchor}"


def _local(text: str, stem: str) -> str:
    """Return a section as a part of a printed theme: deeper headings, links to the page."""

    def deeper(line: str) -> str:
        if not (heading := HEADING.match(line)):
            return line
        return f"#{heading[1]} {heading['text']} {{ #{stem}-{heading['id']} }}"

    text = "\n".join(map(deeper, text.split("\n")))
    return re.sub(r"\]\(#", f"]({stem}.md#", text)
