"""The question bank as decks for Anki, one file a language."""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
import time
import zipfile
from contextlib import closing
from html import escape
from pathlib import Path
from posixpath import normpath
from tempfile import TemporaryDirectory

import genanki

from docs._tools import bank
from docs._tools.guide import Guide
from docs._tools.includes import Library
from docs._tools.notebooks import code_of, page_url
from docs._tools.pages import Page

# Never change these, nor the ids of pages: a learner's progress hangs on them.
SPACE = "attention-guide"
FIELDS = ("Id", "Question", "Short", "Answer", "Evidence", "Link")
WORDS = {
    "zh": {"deck": "注意力指南", "evidence": "证据：代码", "link": "全文与运行结果"},
    "en": {
        "deck": "The attention guide",
        "evidence": "Evidence: code",
        "link": "In full, with outputs",
    },
}
FRONT = '<div class="question">{{Question}}</div>'
BACK = """{{FrontSide}}<hr id="answer">
<div class="short">{{Short}}</div>
{{Answer}}
<details><summary>%(evidence)s</summary>{{Evidence}}</details>
<p><a href="{{Link}}">%(link)s</a></p>"""
STYLE = """
.card { font: 18px/1.55 system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC",
  sans-serif; max-width: 42em; margin: 0 auto; padding: 0 .6em; text-align: left; }
.question { font-size: 1.2em; font-weight: 600; }
.short { font-weight: 600; }
table { display: block; overflow-x: auto; border-collapse: collapse; font-size: .9em; }
th, td { border: 1px solid #8a8679; padding: .2em .5em; }
code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .85em;
  overflow-wrap: anywhere; }
pre { overflow-x: auto; line-height: 1.4; }
pre code { overflow-wrap: normal; white-space: pre; }
div.arithmatex { overflow-x: auto; }
"""


def write(
    guide: Guide, library: Library, pages: dict[str, Page], site_url: str, path: Path
) -> int:
    """Write the decks of one language's pages to `path`; return how many notes there are.

    A note's identity is its page's id and language, so that a newer file updates the
    text and keeps what a learner has learned.
    """
    decks = []
    for theme in bank.themes(pages):
        language = theme.index.language
        words = WORDS[language]
        model = genanki.Model(
            _number(f"model/{language}"),
            f"{SPACE}-{language}",
            fields=[{"name": name} for name in FIELDS],
            templates=[{"name": SPACE, "qfmt": FRONT, "afmt": BACK % words}],
            css=STYLE,
            sort_field_index=1,
        )
        deck = genanki.Deck(
            _number(f"deck/{language}/{theme.room}"), f"{words['deck']}::{theme.title}"
        )
        for question in theme.questions:
            fields = _fields(question, guide, library, site_url)
            deck.add_note(
                genanki.Note(
                    model=model,
                    fields=[fields[name] for name in FIELDS],
                    guid=genanki.guid_for(SPACE, language, fields["Id"]),
                    tags=[theme.room, str(question.meta.get("level", ""))],
                )
            )
        decks.append(deck)
    _pack(genanki.Package(decks), path)
    return sum(len(deck.notes) for deck in decks)


def _pack(package: genanki.Package, path: Path) -> None:
    """Write a package as genanki does, but compressed and without leaving its database."""
    now = time.time()
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        database = Path(folder) / "collection.anki2"
        with closing(sqlite3.connect(database)) as connection:
            numbers = itertools.count(int(now * 1000))
            package.write_to_db(connection.cursor(), now, numbers)
            connection.commit()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.write(database, database.name)
            packed.writestr("media", "{}")


def _fields(
    page: Page, guide: Guide, library: Library, site_url: str
) -> dict[str, str]:
    """Return the fields of a question's note as HTML; formulas are left to MathJax."""

    def absolute(target: str) -> str:
        link, _, anchor = target.partition("#")
        if ":" in target:
            return target
        here = page.key.rpartition("/")[0]
        key = normpath(f"{here}/{link}").removesuffix(".md") if link else page.key
        anchor = f"#{anchor}" if anchor else ""
        return f"{site_url}{page_url(Page(page.language, page.path, key, ''))}{anchor}"

    def told(*sections: str) -> str:
        text = "\n\n".join(page.section(name) for name in sections)
        return bank.fragment(text, guide, absolute)

    codes = [
        f"<pre><code>{escape(code, quote=False)}</code></pre>"
        for block, code in zip(page.cells, code_of(page, library), strict=True)
        if "folded" not in block.tags
    ]
    return {
        "Id": page.meta["id"],
        "Question": bank.inline(page.meta["title"]),
        "Short": told("in-one-sentence"),
        "Answer": told("in-full", "pitfalls"),
        "Evidence": told("evidence") + "".join(codes),
        "Link": f"{site_url}{page_url(page)}",
    }


def _number(name: str) -> int:
    """Return Anki's number of a deck or model: always the same for a name."""
    digest = hashlib.sha256(f"{SPACE}/{name}".encode()).digest()
    return (1 << 30) + int.from_bytes(digest[:4], "big") % (1 << 30)
