"""The table of the applications holds what their pages printed."""

import re
from pathlib import Path

import nbformat
import pytest

from docs._tools.pages import Page
from docs._tools.results import fill, measured
from snippets.applications.races import Runs, in_short


def executed(*texts: str) -> nbformat.NotebookNode:
    outputs = [nbformat.v4.new_output("stream", name="stdout", text=t) for t in texts]
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("x", outputs=[output]) for output in outputs]
    )


def page(body: str) -> Page:
    path = Path("docs/zh/applications/index.md")
    return Page(
        "zh", path, "applications/index", f"---\nid: applications\n---\n\n{body}"
    )


def test_what_races_print_is_what_the_table_reads(capsys):
    without = Runs(scores=[0.5, 0.6, 0.7], seconds=[1.0, 2.0, 3.0])
    attention = Runs(scores=[0.8, 0.9, 1.0], seconds=[4.0, 4.0, 4.0])
    in_short(without, attention, plain=0.55, digits=2, of="zh")
    in_short(attention, without, digits=1)
    assert measured(executed("loss 1\n", capsys.readouterr().out)) == {
        ("zh", "without"): "0.60 ± 0.10",
        ("zh", "with"): "0.90 ± 0.10",
        ("zh", "plain"): "0.55",
        ("zh", "seconds"): "2.0 → 4.0",
        ("", "without"): "0.9 ± 0.1",
        ("", "with"): "0.6 ± 0.1",
        ("", "seconds"): "4.0 → 2.0",
    }


def test_marks_are_replaced():
    body = "| {{ video.with }} | {{ video.zh.without }} |"
    notebook = executed("in short: with 1; plain 2\nin short (zh): without 3\n")
    assert fill(page(body), body, {"video": notebook}.__getitem__) == ("| 1 | 3 |", [])


def test_a_page_that_has_not_run_leaves_dots():
    body = "{{ video.with }}"
    assert fill(page(body), body, lambda stem: None) == ("…", [])


@pytest.mark.parametrize("mark", ["video.plain", "video.en.with", "nowhere.with"])
def test_a_value_that_was_not_printed_is_a_problem(mark):
    body = f"words\n\n{{{{ {mark} }}}}"
    notebook = executed("in short: with 1\n")
    _, (problem,) = fill(page(body), body, {"video": notebook}.__getitem__)
    assert problem.line == 7
    assert re.search(rf"{mark} }}}} has no value: \w+ printed no", problem.what)
    assert "in_short" in problem.remedy
