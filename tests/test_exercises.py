"""Exercises: the reference passes, the blank fails, every planted bug is rejected.

Judged exactly as in the notebook: given code and solution run in one namespace. A bug
is rejected by the check that its entry names, and by none before it in CHECKS.
"""

from __future__ import annotations

import importlib
import sys
import types

import pytest

from docs._tools import exercises, practice
from docs._tools.guide import LANGUAGES, Guide
from docs._tools.includes import Library
from docs._tools.pages import load
from snippets.properties.judge import Broken, hold, judge

GUIDE = Guide()
LIBRARY, PAGES = Library.read(GUIDE), load(GUIDE)
ALL = exercises.all_of(PAGES, LIBRARY, GUIDE, "zh")
each_exercise = pytest.mark.parametrize("exercise", ALL, ids=lambda one: one.stem)
each_bug = pytest.mark.parametrize(
    ("exercise", "bug"),
    [
        pytest.param(exercise, bug, id=f"{exercise.stem}-{bug.name}")
        for exercise in ALL
        for bug in exercise.bugs
    ],
)


def run(*codes: str) -> types.ModuleType:
    """Run pieces of code in one namespace, as cells of a notebook do."""
    module = types.ModuleType("attempt")
    sys.modules["attempt"] = module  # dataclasses look their module up there
    for code in codes:
        exec(compile(code, "<attempt>", "exec", dont_inherit=True), module.__dict__)
    return module


def checks_of(exercise) -> list:
    """Return CHECKS of an exercise."""
    path = exercise.checks_path.relative_to(GUIDE.root).with_suffix("")
    return importlib.import_module(".".join(path.parts)).CHECKS


@each_exercise
def test_blank_fails_every_check(exercise):
    report = judge(run(exercise.blank()), checks_of(exercise), examples=2)
    held = set(exercise.titles) - set(report.broken)
    assert not held, f"the blank passes {held}"


@each_bug
def test_planted_bug_is_rejected_by_the_check_it_names(exercise, bug):
    attempt = run(exercise.whole(bug))
    for one in checks_of(exercise):
        try:
            hold(lambda draw, one=one: one(attempt, draw))
        except Broken:
            assert one.__name__ == bug.caught_by
            return
    pytest.fail(f"no check rejects {bug.name}: the judge accepts a wrong answer")


def notebook_of(exercise, language: str):
    """Return the exercise of a page's language and its notebook, as downloaded."""
    there = exercises.of(PAGES[exercise.page.key][language], LIBRARY, GUIDE)
    return there, practice.exercise_notebook(there, "https://guide.example/")


def code_of(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@each_exercise
@pytest.mark.parametrize("language", LANGUAGES)
def test_notebook_judges_the_blank(exercise, language, capsys):
    """The cells of the download as they are, but for the one that times."""
    _, notebook = notebook_of(exercise, language)
    run(*code_of(notebook)[:-1])
    said = capsys.readouterr().out
    assert "✗" in said
    assert "✓" not in said
    assert {"zh": "还没有写", "en": "not written yet"}[language] in said
    assert any(line.startswith("<details>") for c in notebook.cells
               for line in c.source.splitlines()), "no hints"  # fmt: skip


@each_exercise
def test_notebook_judges_the_reference(exercise, capsys):
    """The cells of the download with the solution put in: every check holds."""
    exercise, notebook = notebook_of(exercise, "en")
    cells = code_of(notebook)
    for code, blank in exercise.cells:
        if blank:
            cells[cells.index(exercises.blanked(code))] = code
    run(*cells)
    said = capsys.readouterr().out
    assert "✗" not in said, said
    for title in exercise.titles.values():
        assert f"✓ {title['en']}" in said
    assert "MiB" in said


@each_exercise
def test_notebooks_of_both_languages_run_the_same(exercise):
    """So the reference needs to be judged in one language only."""
    zh, en = (code_of(notebook_of(exercise, language)[1]) for language in ("zh", "en"))
    assert [code.replace("'zh')", "'en')") for code in zh] == en


@each_exercise
def test_bugs_to_find_say_nothing_in_advance(exercise):
    """A find-the-bug notebook shows the wrong code; its checks fail; the answer folds."""
    for number, bug in enumerate(practice.real_bugs(exercise), 1):
        notebook = practice.bug_notebook(
            exercise, bug, number, "https://guide.example/"
        )
        before, _, answer = "\n".join(c.source for c in notebook.cells).partition(
            "<details>"
        )
        assert bug.said["zh"] in answer
        assert bug.name not in before
        assert bug.plant(exercise.solution) in before
        assert bug.real in answer


def test_names_of_reader_and_kit_do_not_collide():
    """The notebook runs all in one namespace: a check must not hide the reader's code."""
    for exercise in ALL:
        theirs = _defined(exercise.whole())
        ours = set().union(*map(_defined, [*exercise.kit, exercise.checks]))
        assert not theirs & ours, f"{exercise.stem}: rename {theirs & ours}"


def _defined(code: str) -> set[str]:
    import ast

    return {
        node.name
        for node in ast.parse(code).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
