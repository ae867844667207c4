"""The last touches on a page's HTML: light code, boxes that scroll, no blank weight."""

from __future__ import annotations

import json
import re
import unicodedata
from html import escape

import jieba

from docs._tools import bank
from docs._tools.notebooks import WORDS
from docs._tools.pages import Page
from docs._tools.references import links_of

PRE = re.compile(r"<pre><span></span><code>(.*?)</code></pre>", re.S)
TOKEN = re.compile(r'<span class="(\w+)">([^<]*)</span>')
CALLOUT = re.compile(r'(<p class="admonition-title">)(\w+)<')
CODE = re.compile(r"<pre\b.*?</pre>", re.S)
DEFINED = re.compile(r"(?:^|>) *(?:def|class) (\w+)", re.M)
KEPT = re.compile(r"(<(pre|script|style|textarea)\b.*?</\2>)", re.S)
UNUSED = re.compile(r"^assets/javascripts/lunr/|\.map$|^assets/images/favicon\.png$")
BEFORE_BLOCK = re.compile(
    r"\n(?=</?(?:article|aside|body|dd|div|dl|dt|footer|form|h[1-6]|head|header|html|li|link|main"
    r"|meta|nav|ol|p|section|table|tbody|td|th|thead|title|tr|ul)\b)"
)
HELPER = re.compile(r"_|test_")  # names nobody looks for a page by
HAN = re.compile(r"[\u3400-\u9fff]+")
NARROW = 40  # columns that a phone shows

# Pygments' class → the element that marks it: keyword, comment, string, defined name.
# What is not here (names, operators, punctuation, numbers) has the color of the code.
# As spans with classes the same code weighs three times as much.
MARKS = {
    "k": "b", "kc": "b", "kd": "b", "kn": "b", "kr": "b", "kt": "b", "ow": "b",
    "c": "i", "c1": "i", "ch": "i", "cm": "i", "cs": "i", "sd": "i",
    "s": "u", "s1": "u", "s2": "u", "sa": "u", "sb": "u", "sc": "u", "se": "u", "sr": "u",
    "si": "u",
    "nf": "dfn", "fm": "dfn", "nc": "dfn",
}  # fmt: skip


def content(html: str, language: str) -> str:
    """Dress what a page's Markdown became."""
    html = CALLOUT.sub(
        lambda m: f"{m[1]}{WORDS[language].get(m[2].upper(), m[2])}<", html
    )
    html = PRE.sub(lambda match: _code(match[1]), html)
    html = html.replace('<div class="output', '<div class="no-copy output')
    html = html.replace(
        "<table>", '<div class="table" tabindex="0"><table class="plain">'
    )
    return re.sub(r'(<table class="plain">.*?</table>)', r"\1</div>", html, flags=re.S)


def page(html: str) -> str:
    """Take out of a whole page the blank lines and indents that nobody sees."""
    parts = KEPT.split(html)
    # split gives: text, kept, its tag, text, kept, its tag, …, text
    return "".join(
        BEFORE_BLOCK.sub("", re.sub(r"\s*\n\s*", "\n", part))
        if number % 3 == 0
        else part
        for number, part in enumerate(parts)
        if number % 3 != 2
    )


def search_weight(page: Page) -> dict:
    """Return how the search treats a page that does not say so itself."""
    if page.kind == "index" or page.key == "tags":
        return {"exclude": True}  # lists: what they list is found
    if page.kind == "gallery":
        return {"boost": 0.2}  # what it shows stands on the pages of its questions, too
    if page.kind == "plain":
        return {"boost": 0.5}
    return {} if page.kind == "question" else {"boost": 1.5}  # the page on the thing


def search_index(text: str, pages: dict[str, dict[str, Page]], language: str) -> str:
    """Return a search index that finds pages by what they are about.

    Of each block of code it keeps the names that are defined there; each page as a
    whole is found by its description, its title in either language and those names.
    """
    index = json.loads(text)
    names: dict[str, list[str]] = {}
    for entry in index["docs"]:
        location = entry["location"].partition("#")[0]
        for code in CODE.findall(entry["text"]):
            names.setdefault(location, []).extend(
                name for name in DEFINED.findall(code) if not HELPER.match(name)
            )
        entry["text"] = CODE.sub(
            lambda code: f" {' '.join(DEFINED.findall(code[0]))} ", entry["text"]
        )
    by_location = {f"{key}/": pair for key, pair in pages.items()}
    for entry in index["docs"]:
        if pair := by_location.get(entry["location"]):
            titles = [p.meta["title"] for of, p in pair.items() if of != language]
            defined = dict.fromkeys(names.get(entry["location"], []))
            about = [
                _cut(pair[language].meta["description"]),
                *titles,
                " ".join(defined),
            ]
            entry["text"] = " ".join(f"<p>{escape(x)}</p>" for x in about if x)
    return json.dumps(index, ensure_ascii=False, separators=(",", ":"))


def _cut(text: str) -> str:
    """Part Chinese words by zero-width spaces, as the search plugin does."""
    return HAN.sub(lambda m: "\u200b" + "\u200b".join(jieba.cut(m[0])) + "\u200b", text)


def unused(path: str) -> bool:
    """Whether a file of the theme is asked for by no page."""
    return bool(UNUSED.search(path))


def reading_order(pages: dict[str, Page], part: str) -> list[str]:
    """Return the keys of a part's pages, in the order in which its index links them."""
    index = pages.get(f"{part}/index")
    if index is None:
        return []
    keys = [
        f"{part}/{target.partition('#')[0].removesuffix('.md')}"
        for _, target in links_of(index)
    ]
    return [
        key
        for key in dict.fromkeys(keys)
        if key in pages
        and pages[key].kind != "index"
        and pages[key].meta.get("id") not in bank.LISTS
    ]


def _code(code: str) -> str:
    def marked(match: re.Match) -> str:
        mark = MARKS.get(match[1])
        return f"<{mark}>{match[2]}</{mark}>" if mark else match[2]

    code = TOKEN.sub(marked, code)
    code = re.sub(r"</(b|i|u)>(\s*)<\1>", r"\2", code)
    lines = (
        re.sub(r"<[^>]+>", "", code)
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .split("\n")
    )
    focus = ' tabindex="0"' if max(map(_width, lines)) > NARROW else ""
    return f"<pre{focus}><code>{code}</code></pre>"


def _width(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)
