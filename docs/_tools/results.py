"""What the applications measured, put into the table of their index page.

An application prints lines `in short (zh): without 1.0 ± 0.1; with …; seconds …`
(`in_short` of snippets/applications/races.py); the index names what it wants of them
as `{{ text_classification.zh.with }}`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from nbformat import NotebookNode

from docs._tools.pages import Page
from docs._tools.problems import Problem

LINE = re.compile(r"^in short(?: \((?P<of>\w+)\))?: (?P<parts>.+)$", re.M)
MARK = re.compile(r"\{\{ (?P<page>\w+)(?:\.(?P<of>\w+))?\.(?P<what>\w+) \}\}")
WAITING = "…"


def measured(notebook: NotebookNode) -> dict[tuple[str, str], str]:
    """Return {(label or '', what): value} of all such lines of an executed notebook."""
    text = "".join(
        f"{output.text}\n"
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
    )
    found = {}
    for line in LINE.finditer(text):
        for part in line["parts"].split("; "):
            what, _, value = part.partition(" ")
            found[line["of"] or "", what] = value
    return found


def fill(
    page: Page, body: str, executed: Callable[[str], NotebookNode | None]
) -> tuple[str, list[Problem]]:
    """Return `body` with each mark replaced, and a problem for each that has no value.

    `executed` gives the notebook of a stem, None while it has not run, and raises
    KeyError for a page that does not exist.
    """
    problems = []

    def value(match: re.Match) -> str:
        of = match["of"] or ""
        try:
            notebook = executed(match["page"])
        except KeyError:
            notebook = NotebookNode(cells=[])
        if notebook is None:
            return WAITING
        found = measured(notebook)
        if (of, match["what"]) not in found:
            line = page.text[: page.text.index(match[0])].count("\n") + 1
            problems.append(
                page.problem(
                    line,
                    f"{match[0]} has no value: {match['page']} printed no such result",
                    "print it with `in_short`, or correct the name",
                )
            )
            return WAITING
        return found[of, match["what"]]

    return MARK.sub(value, body), problems
