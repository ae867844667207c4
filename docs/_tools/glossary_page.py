"""The glossary as a page, and as the dictionary of the Chinese search."""

from __future__ import annotations

from docs._tools.guide import Guide

HEAD = {"zh": ("中文", "English", "意思"), "en": ("English", "中文", "Meaning")}


def table(guide: Guide, language: str) -> str:
    """Return the glossary as a Markdown table, sorted by the language's own term."""
    other = "en" if language == "zh" else "zh"
    lines = ["", "| " + " | ".join(HEAD[language]) + " |", "|---|---|---|"]
    for term in sorted(guide.glossary, key=lambda t: t[language].lower()):
        lines.append(
            f"| {term[language]} | {term[other]} | {term['note_' + language]} |"
        )
    return "\n".join(lines) + "\n"


def search_dictionary(guide: Guide) -> str:
    """Return jieba's user dictionary: each Chinese term is one word."""
    terms = {
        part for t in guide.glossary for part in t["zh"].split() if not part.isascii()
    }
    return "".join(f"{term} 100000 n\n" for term in sorted(terms))
