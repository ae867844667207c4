"""Exercises of the implementation pages: what is given, what is blank, which bugs are planted.

An exercise is a page's cells tagged `solution`, the checks in
`tests/<room>/exercise_<stem>.py` and the bugs in `tests/<room>/bugs_<stem>.yml`.
Nothing here runs them: tests/test_exercises.py does.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from docs._tools.guide import LANGUAGES, Guide
from docs._tools.includes import Library, includes
from docs._tools.pages import Block, Page
from docs._tools.problems import Problem

FEWEST_BUGS = 4
DEFINITIONS = (
    ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign,
)  # fmt: skip
MAIN = 'if __name__ == "__main__":'
IMPORTED = re.compile(r"^from snippets\.([\w.]+) import", re.M)
KEYS = {"name", "en", "zh", "caught_by"}
MAY = {"real", "swap", "code"}


@dataclass(frozen=True)
class Bug:
    """A small wrong variant of the solution, and the check that rejects it first."""

    name: str
    said: dict[str, str]
    caught_by: str
    swap: tuple[tuple[str, str], ...] = ()
    code: str = ""
    real: str = ""
    line: int = 1

    def plant(self, solution: str) -> str:
        """Return the solution with this bug in it; ValueError when it does not fit."""
        for old, new in self.swap:
            if (found := solution.count(old)) != 1:
                raise ValueError(f"{old!r} stands {found} times in the solution")
            solution = solution.replace(old, new)
        return _override(solution, self.code) if self.code else solution


@dataclass(frozen=True)
class Exercise:
    """The exercise of one implementation page, in one language."""

    page: Page
    library: Library
    guide: Guide

    @property
    def stem(self) -> str:
        """The page's stem."""
        return self.page.key.split("/")[-1]

    @property
    def folder(self) -> Path:
        """Where checks and bugs stand."""
        room = self.page.key.removeprefix("implementations/").rpartition("/")[0]
        return self.guide.root / "tests" / room

    @property
    def checks_path(self) -> Path:
        """The file of checks."""
        return self.folder / f"exercise_{self.stem}.py"

    @property
    def bugs_path(self) -> Path:
        """The file of planted bugs."""
        return self.folder / f"bugs_{self.stem}.yml"

    @cached_property
    def cells(self) -> list[tuple[str, bool]]:
        """(code, is it to be written by the reader) up to the last such cell."""
        cells = self.page.cells
        solved = [i for i, block in enumerate(cells) if "solution" in block.tags]
        found = []
        for block in cells[: solved[-1] + 1] if solved else []:
            code, _ = self.library.cell(self.page, block)
            if "solution" in block.tags:
                found.append((code, True))
            elif _is_given(block, code):
                found.append((code, False))
        return found

    @property
    def solution(self) -> str:
        """What the reader has to write."""
        return join(code for code, blank in self.cells if blank)

    def whole(self, bug: Bug | None = None) -> str:
        """Return given code and solution, with a bug in it if one is named."""
        return join(self.with_solution(bug.plant(self.solution) if bug else None))

    def with_solution(self, solution: str | None = None) -> Iterator[str]:
        """Give the cells in order, with another solution in the place of the last."""
        last = max(i for i, (_, blank) in enumerate(self.cells) if blank)
        for number, (code, blank) in enumerate(self.cells):
            if solution is None or not blank:
                yield code
            elif number == last:
                yield solution

    def blank(self) -> str:
        """Return given code and the solution with its bodies taken out."""
        return join(blanked(code) if blank else code for code, blank in self.cells)

    @cached_property
    def checks(self) -> str:
        """The section that the notebook shows."""
        name = self.checks_path.relative_to(self.guide.root).as_posix()
        section = self.library.files.get(name, {}).get("checks")
        return section.code if section else ""

    @property
    def kit(self) -> list[str]:
        """The code of the kit that the checks need, file by file."""
        codes = []
        for name in self._files:
            lines = (self.guide.root / name).read_text("utf-8").splitlines()
            end = lines.index(MAIN) if MAIN in lines else len(lines)
            sections = self.library.files[name].values()
            codes.append(join(one.code for one in sections if one.line <= end))
        return codes

    @cached_property
    def _files(self) -> list[str]:
        files: list[str] = []

        def add(text: str) -> None:
            for module in IMPORTED.findall(text):
                name = f"snippets/{module.replace('.', '/')}.py"
                if name not in files:
                    add((self.guide.root / name).read_text("utf-8"))
                    files.append(name)

        add(self.checks_path.read_text("utf-8"))
        add("from snippets.properties.beside import beside")
        add("from snippets.properties.judge import judge")
        return files

    @property
    def whole_there(self) -> bool:
        """Whether its files are there and can be read: `check` tells what is missing."""
        if not (self.checks_path.exists() and self.titles and self.bugs):
            return False
        return not list(_check_bugs(self))

    @property
    def shown(self) -> set[str]:
        """The files whose sections the notebook holds."""
        return {self.checks_path.relative_to(self.guide.root).as_posix(), *self._files}

    @cached_property
    def titles(self) -> dict[str, dict[str, str]]:
        """Name of each check → its title in each language, in the order of CHECKS."""
        titles, order = {}, []
        for node in ast.parse(self.checks).body:
            if isinstance(node, ast.FunctionDef):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "check":
                        titles[node.name] = {
                            k.arg: ast.literal_eval(k.value) for k in mark.keywords
                        }
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == (
                "CHECKS"
            ):
                order = [ast.unparse(item) for item in node.value.elts]
        return {name: titles[name] for name in order if name in titles}

    @cached_property
    def bugs(self) -> list[Bug]:
        """The planted bugs; [] when the file cannot be read (a problem says so)."""
        if not self.bugs_path.exists():
            return []
        text = self.bugs_path.read_text("utf-8")
        try:
            found = yaml.safe_load(text) or []
        except yaml.YAMLError:
            return []
        return [
            Bug(
                str(one.get("name", "")),
                {language: str(one.get(language, "")) for language in LANGUAGES},
                str(one.get("caught_by", "")),
                tuple((old, new) for old, new in one.get("swap", [])),
                one.get("code", ""),
                str(one.get("real", "")),
                _line(text, one.get("name")),
            )
            for one in found
            if isinstance(one, dict)
        ]


def of(page: Page, library: Library, guide: Guide) -> Exercise | None:
    """Return the exercise of a page, or None where no cell is to be solved."""
    solved = any("solution" in block.tags for block in page.cells)
    return Exercise(page, library, guide) if solved else None


def all_of(pages: dict, library: Library, guide: Guide, language: str) -> list:
    """Return the exercises of a language, in the order of keys."""
    found = [
        of(pair[language], library, guide)
        for pair in pages.values()
        if language in pair and pair[language].kind == "implementation"
    ]
    return [exercise for exercise in found if exercise]


def check(pages: dict, library: Library, guide: Guide) -> Iterator[Problem]:
    """Yield implementation pages without a whole exercise, and bugs that do not fit."""
    for pair in pages.values():
        for page in pair.values():
            if page.kind == "implementation":
                yield from _check_page(page, library, guide)


def _check_page(page: Page, library: Library, guide: Guide) -> Iterator[Problem]:
    exercise = of(page, library, guide)
    if exercise is None:
        yield page.problem(
            page.body_line,
            "the page has no exercise: no cell is marked as the solution",
            'write ```python tags=["solution"] on the cells that readers should write',
        )
        return
    if page.language != LANGUAGES[0]:
        return  # checks and bugs are shared: told once
    checks, bugs = exercise.checks_path, exercise.bugs_path
    if not checks.exists() or not exercise.checks:
        yield Problem(
            checks, 1, f"{page.key} has no checks", "write its section `checks`"
        )
        return
    if not bugs.exists():
        yield Problem(
            bugs, 1, f"{page.key} has no planted bugs", f"write at least {FEWEST_BUGS}"
        )
        return
    for name, title in exercise.titles.items():
        if set(title) != set(LANGUAGES):
            yield Problem(checks, 1, f"check {name!r} has no title in both languages",
                          'write @check(en="…", zh="…")')  # fmt: skip
    if not exercise.titles or "def workload(" not in exercise.checks:
        yield Problem(
            checks, 1, "CHECKS or workload is missing", "end the section with both"
        )
    yield from _check_bugs(exercise)


def _check_bugs(exercise: Exercise) -> Iterator[Problem]:
    path = exercise.bugs_path
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        yield Problem(path, line, f"cannot be read as YAML: {error}", "correct it")
        return
    if not isinstance(found, list) or not all(isinstance(x, dict) for x in found):
        yield Problem(path, 1, "it is not a list of bugs", "write `- name: …` entries")
        return
    if len(found) < FEWEST_BUGS:
        yield Problem(path, 1, f"{len(found)} bugs are planted", f"plant {FEWEST_BUGS}")
    names = [one.get("name") for one in found]
    for one, bug in zip(found, exercise.bugs, strict=True):
        wrong = []
        if lacking := KEYS - set(one):
            wrong.append((f"lacks {', '.join(sorted(lacking))}", "add what is missing"))
        if unknown := set(one) - KEYS - MAY:
            wrong.append((f"has {', '.join(sorted(unknown))}", "remove or correct it"))
        if names.count(bug.name) > 1:
            wrong.append(("stands here twice", "rename one"))
        if not bug.swap and not bug.code:
            wrong.append(("changes nothing", "give `swap:` or `code:`"))
        if bug.caught_by and bug.caught_by not in exercise.titles:
            known = ", ".join(exercise.titles)
            wrong.append((f"is caught by {bug.caught_by!r}", f"CHECKS has: {known}"))
        if bug.real and not bug.real.startswith("https://"):
            wrong.append(("`real:` is no https address", "link where it happened"))
        try:
            if bug.plant(exercise.solution) == exercise.solution:
                wrong.append(("leaves the solution as it is", "change something"))
        except (ValueError, SyntaxError) as error:
            wrong.append((f"does not fit: {error}", "take the text of the solution"))
        for what, remedy in wrong:
            yield Problem(path, bug.line, f"bug {bug.name!r} {what}", remedy)


def join(codes) -> str:
    """Return pieces of code one below the other."""
    return "\n\n\n".join(codes)


def _line(text: str, name: object) -> int:
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"^- name:\s+{re.escape(str(name))}\s*$", line):
            return number
    return 1


def _is_given(block: Block, code: str) -> bool:
    """Whether a cell only defines things that a solution may need."""
    shown = all(file.startswith("snippets/") for file, _ in includes(block))
    if block.option("raises") or block.option("alt") or not shown:
        return False
    try:
        body = ast.parse(code).body
    except SyntaxError:
        return False
    return all(isinstance(node, DEFINITIONS) for node in body)


def blanked(code: str) -> str:
    """Take out the bodies of functions; signatures, docstrings and __init__ stay."""
    lines = code.splitlines()
    cuts: list[tuple[int, int, int]] = []

    def cut(node: ast.FunctionDef) -> None:
        first, last = node.body[0], node.body[-1]
        start = first.lineno
        if ast.get_docstring(node) is not None:
            start = first.end_lineno + 1
        cuts.append((start, last.end_lineno, node.body[0].col_offset))

    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef):
            cut(node)
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name != "__init__":
                    cut(inner)
    for start, end, indent in reversed(cuts):
        lines[start - 1 : end] = [" " * indent + "raise NotImplementedError"]
    return "\n".join(lines)


def _override(code: str, definitions: str) -> str:
    """Put definitions in the place of those of the same name; add the others below."""
    lines, new = code.splitlines(), definitions.strip("\n").splitlines()
    places = {}
    for node in ast.parse(code).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            places[node.name] = (first, node.end_lineno)
    added, swaps = [], []
    for node in ast.parse(definitions.strip("\n")).body:
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(d.lineno for d in decorators)])
        text = new[first - 1 : node.end_lineno]
        place = places.get(getattr(node, "name", None))
        if place:
            swaps.append((*place, text))
        else:
            added += ["", "", *text]
    for first, last, text in sorted(swaps, reverse=True, key=lambda swap: swap[0]):
        lines[first - 1 : last] = text
    return "\n".join([*lines, *added])
