"""The glossary as a page, and as the dictionary of the Chinese search."""

from __future__ import annotations

from posixpath import relpath

from docs._tools.guide import Guide

HEAD = {
    "zh": ("中文", "English", "意思", "不写"),
    "en": ("English", "中文", "Meaning", "Not"),
}
COMMA = {"zh": "、", "en": ", "}
WHY = {"zh": "{}：{}", "en": "{}: {}"}


def table(guide: Guide, language: str) -> str:
    """Return the glossary as a Markdown table, sorted by the language's own term.

    Each term leads to the page that defines it.
    """
    other = "en" if language == "zh" else "zh"
    lines = ["", "| " + " | ".join(HEAD[language]) + " |", "|---|---|---|---|"]
    for term in sorted(guide.glossary, key=lambda t: t[language].lower()):
        link = relpath(f"{term['page']}.md", "about")
        avoided = COMMA[language].join(term.get(f"avoid_{language}", []))
        if why := term.get(f"why_{language}"):
            avoided = WHY[language].format(avoided, why)
        lines.append(
            f"| [{term[language]}]({link}) | {term[other]} | {term['note_' + language]} "
            f"| {avoided} |"
        )
    return "\n".join(lines) + "\n"


def search_dictionary(guide: Guide) -> str:
    """Return jieba's user dictionary: each Chinese term is one word.

    Terms of one character stay out: they would cut words that contain them.
    """
    terms = {
        part
        for t in guide.glossary
        for part in t["zh"].split()
        if len(part) > 1 and not part.isascii()
    }
    return "".join(f"{term} 100000 n\n" for term in sorted(terms))
