"""Formulas as MathML, made when the site is built."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from functools import cache

from math_core import LatexError, LatexToMathML

from docs._tools.pages import Page
from docs._tools.parity import formulas
from docs._tools.problems import Problem

SPAN = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<open>[(\[])(?P<latex>.*?)\\[)\]]</(?P=tag)>',
    re.S,
)


@cache
def _converter() -> LatexToMathML:
    return LatexToMathML()


@cache
def mathml(latex: str, display: bool) -> str:
    """Return a formula as MathML. Raises LatexError when it cannot be read."""
    return _converter().convert_with_local_state(latex.strip(), displaystyle=display)


def replace(page_html: str) -> str:
    """Put MathML in the place of each formula of a rendered page."""

    def made(match: re.Match) -> str:
        display = match["open"] == "["
        made_of = mathml(html.unescape(match["latex"]), display)
        return (
            f'<div class="formula" tabindex="0">{made_of}</div>' if display else made_of
        )

    return SPAN.sub(made, page_html)


def check(page: Page) -> Iterator[Problem]:
    """Yield the formulas that cannot be rendered."""
    for line, latex in formulas(page):
        try:
            mathml(latex, False)
        except LatexError as error:
            yield page.problem(
                line,
                f"the formula {latex!r} cannot be rendered: "
                f"{str(error).splitlines()[0]}",
                "write it in plainer LaTeX",
            )
