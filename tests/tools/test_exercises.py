"""What keeps an exercise whole, and what a reader gets of it."""

import json

import nbformat
import pytest

from docs._tools import exercises, practice
from docs._tools.exercises import Bug, blanked
from docs._tools.includes import Library
from docs._tools.pages import load
from docs._tools.problems import Stop
from docs._tools.site import check_all
from tests.tools.conftest import KEY, told

BUGS = "tests/room/bugs_mean.yml"
CHECKS = "tests/room/exercise_mean.py"
FAULTS = {
    "the text is not in the solution": (BUGS, "x_TD.mean(0)", "x_TD.avg(0)", "0 times"),
    "unknown check": (BUGS, "caught_by: average", "caught_by: mean", "CHECKS has"),
    "no address": (BUGS, "https://github", "http://github", "no https address"),
    "a key is missing": (BUGS, "  zh: 是和。\n", "", "lacks zh"),
    "an unknown key": (BUGS, "  zh: 是和。\n", "  zh: 是和。\n  why: x\n", "has why"),
    "a name twice": (BUGS, "name: first", "name: sum", "stands here twice"),
    "nothing changes": (BUGS, "x_TD.sum(0)", "x_TD.mean(0)", "leaves the solution"),
    "not YAML": (BUGS, "- name: sum", "- name: [sum", "cannot be read as YAML"),
    "no list": (BUGS, "- name: sum\n", "- sum\n- name: sum\n", "not a list of bugs"),
    "too few": (BUGS, "- name: first", "# - name: first", "lacks"),
    "a title in one language": (CHECKS, ', zh="是平均"', "", "both languages"),
    "no workload": (CHECKS, "def workload", "def work", "workload is missing"),
    "no checks": (CHECKS, ":checks]", ":tests]", "has no checks"),
}


def exercise_of(fixture, language="zh"):
    """Return the exercise of the fixture's page."""
    guide = fixture.guide
    page = load(guide)[KEY][language]
    return exercises.of(page, Library.read(guide), guide)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_with_its_file(fixture, fault):
    file, old, new, says = FAULTS[fault]
    path = fixture.guide.root / file
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 2 if "checks]" in old else 1), "utf-8")
    if fault == "too few":
        path.write_text(text.partition("- name: first")[0], "utf-8")
        says = "3 bugs are planted"
    told(check_all(fixture.guide), file.rpartition("/")[2], says)
    assert not exercise_of(fixture).whole_there or file == CHECKS


@pytest.mark.parametrize("file", [BUGS, CHECKS])
def test_a_missing_file_is_told(fixture, file):
    (fixture.guide.root / file).unlink()
    told(check_all(fixture.guide), file.rpartition("/")[2])
    assert not exercise_of(fixture).whole_there


def test_a_page_without_solution_is_told(fixture):
    fixture.edit_both(' tags=["solution"]', "")
    told(check_all(fixture.guide), "the page has no exercise")


def test_what_is_given_and_what_is_blank(fixture):
    exercise = exercise_of(fixture)
    assert exercise.cells[0] == ("import torch", False)
    assert exercise.solution == "def mean(x_TD):\n    return x_TD.mean(0)"
    assert exercise.blank().endswith("def mean(x_TD):\n    raise NotImplementedError")
    assert "print" not in exercise.whole()


def test_blanking_keeps_signature_docstring_and_init():
    code = '''class A(B):
    """Doc."""

    def __init__(self):
        self.x = 1

    def f(
        self,
        y: int,
    ) -> int:
        """Say f.

        More.
        """
        if y:
            return 1
        return 2
'''
    assert (
        blanked(code)
        == '''class A(B):
    """Doc."""

    def __init__(self):
        self.x = 1

    def f(
        self,
        y: int,
    ) -> int:
        """Say f.

        More.
        """
        raise NotImplementedError'''
    )


def test_a_bug_replaces_text_or_whole_definitions(fixture):
    solution = "@mark\ndef f():\n    return 1\n\n\ndef g():\n    return 2"
    bug = Bug("b", {}, "c", swap=(("return 2", "return 3"),))
    assert bug.plant(solution).endswith("return 3")
    bug = Bug("b", {}, "c", code="def f():\n    return 0\n\n\ndef h():\n    pass\n")
    planted = bug.plant(solution)
    assert "@mark" not in planted
    assert planted.startswith("def f():\n    return 0\n")
    assert "return 2" in planted
    assert planted.endswith("def h():\n    pass")
    with pytest.raises(ValueError, match="stands 2 times"):
        Bug("b", {}, "c", swap=(("return", "x"),)).plant(solution)


@pytest.mark.parametrize(("language", "hint"), [("zh", "提示 1"), ("en", "Hint 1")])
def test_the_notebook_holds_statement_hints_and_no_answer(fixture, language, hint):
    notebook = practice.exercise_notebook(exercise_of(fixture, language), "https://g/")
    text = "\n".join(c.source for c in notebook.cells)
    assert f"<details><summary>{hint}</summary>" in text
    assert "raise NotImplementedError" in text
    assert "x_TD.mean(0)" not in text
    nbformat.validate(notebook)


def test_work_on_an_exercise_is_never_written_over(fixture, capsys):
    path = practice.write(fixture.guide, "mean", "en")
    assert json.loads(path.read_text("utf-8"))["cells"]
    path.write_text("my work", "utf-8")
    assert practice.write(fixture.guide, "mean", "en") == path
    assert path.read_text("utf-8") == "my work"
    assert "your work is kept" in capsys.readouterr().err
    with pytest.raises(Stop, match="no exercise is named 'men': there are mean"):
        practice.write(fixture.guide, "men", "zh")


def test_tables_name_exercise_puzzle_and_bug(fixture):
    exercise = exercise_of(fixture, "en")
    pages = {
        name: type(exercise.page)("en", exercise.page.path, f"practice/{name}", "")
        for name in practice.TABLES
    }
    tables = {n: practice.table(page, [exercise]) for n, page in pages.items()}
    assert "../implementations/room/mean/mean_exercise.ipynb" in tables["exercises"]
    assert "find_the_bug/mean_1.ipynb" in tables["find_the_bug"]
    assert "| First. | It is the mean |  |" in tables["planted_bugs"]
    assert "[name#7](https://github.com/owner/name/issues/7)" in tables["planted_bugs"]
    assert all("1 exercises, 4 wrong" in table for table in tables.values())
