"""Hints: `> [!TIP]` quotes of a page, folded on the site and in notebooks."""

from __future__ import annotations

import re

TIP = re.compile(r"^> \[!TIP\][ ]*\n((?:^>.*(?:\n|\Z))+)", re.M)
WORDS = {"zh": "提示", "en": "Hint"}


def for_site(text: str, language: str) -> str:
    """Return Markdown in which each hint is folded by the theme's extension."""
    return _fold(text, language, '??? tip "{title}"\n\n{body}\n', "    ")


def for_notebook(text: str, language: str) -> str:
    """Return Markdown in which each hint is a `<details>` element."""
    form = "<details><summary>{title}</summary>\n\n{body}\n\n</details>\n"
    return _fold(text, language, form, "")


def _fold(text: str, language: str, form: str, indent: str) -> str:
    number = 0

    def folded(match: re.Match) -> str:
        nonlocal number
        number += 1
        lines = [line[1:].removeprefix(" ") for line in match[1].rstrip().splitlines()]
        body = "\n".join(f"{indent}{line}".rstrip() for line in lines).strip("\n")
        return form.format(title=f"{WORDS[language]} {number}", body=body)

    return TIP.sub(folded, text)
