"""Named sections of snippets/ and tests/, and the include lines that show them."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from docs._tools.guide import Guide
from docs._tools.pages import Block, Page
from docs._tools.problems import Problem

INCLUDE = re.compile(r'^--8<--\s+"(?P<file>[\w./-]+):(?P<section>[\w-]+)"\s*$')
MARK = re.compile(r"^\s*# --8<-- \[(?P<edge>start|end):(?P<name>[\w-]+)\]\s*$")


@dataclass(frozen=True)
class Section:
    """A named run of lines of a file, without its indentation and inner marks."""

    file: str
    name: str
    line: int
    code: str


def sections(path: Path, root: Path) -> tuple[dict[str, Section], list[Problem]]:
    """Return the sections of a file by name, and what is wrong with its marks."""
    name_of_file = path.relative_to(root).as_posix()
    found: dict[str, Section] = {}
    opened: dict[str, int] = {}
    problems: list[Problem] = []
    lines = path.read_text("utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if not (mark := MARK.match(line)):
            continue
        name = mark["name"]
        if mark["edge"] == "start":
            if name in opened or name in found:
                problems.append(
                    Problem(
                        path, number, f"section `{name}` starts twice", "rename one"
                    )
                )
            opened[name] = number
        elif name not in opened:
            problems.append(
                Problem(
                    path,
                    number,
                    f"section `{name}` ends but never starts",
                    f"add `# --8<-- [start:{name}]` above",
                )
            )
        else:
            start = opened.pop(name)
            inner = [x for x in lines[start : number - 1] if not MARK.match(x)]
            code = textwrap.dedent("\n".join(inner)).strip("\n")
            found[name] = Section(name_of_file, name, start + 1, code)
    problems += [
        Problem(
            path,
            line,
            f"section `{name}` never ends",
            f"add `# --8<-- [end:{name}]` below",
        )
        for name, line in opened.items()
    ]
    return found, problems


@dataclass(frozen=True)
class Library:
    """Every section of snippets/ and tests/."""

    files: dict[str, dict[str, Section]]
    problems: tuple[Problem, ...]
    root: Path

    @classmethod
    def read(cls, guide: Guide) -> Library:
        """Read all sections of a guide."""
        files, problems = {}, []
        for folder in ("snippets", "tests"):
            for path in sorted((guide.root / folder).rglob("*.py")):
                if path.is_relative_to(guide.root / "tests/tools"):
                    continue  # its fixtures hold marks of their own
                name = path.relative_to(guide.root).as_posix()
                files[name], found = sections(path, guide.root)
                problems += found
        return cls(files, tuple(problems), guide.root)

    def cell(self, page: Page, block: Block) -> tuple[str, list[Problem]]:
        """Return the code of a cell and the problems of its include lines."""
        parts, problems = [], []
        for number, line in enumerate(block.lines, block.line + 1):
            include = INCLUDE.match(line)
            if not line.strip():
                continue
            if not include:
                problems.append(
                    page.problem(
                        number,
                        f"pasted Python in a page: {line.strip()[:60]!r}",
                        "move it into a section of snippets/ or tests/ and include that",
                    )
                )
                continue
            file, name = include["file"], include["section"]
            if file not in self.files:
                problems.append(
                    page.problem(
                        number,
                        f"included file {file!r} does not exist",
                        "correct the path: it begins with snippets/ or tests/",
                    )
                )
            elif name not in self.files[file]:
                known = ", ".join(self.files[file]) or "none"
                problems.append(
                    page.problem(
                        number,
                        f"{file} has no section {name!r}",
                        f"its sections are: {known}",
                    )
                )
            else:
                parts.append(self.files[file][name])
        code = ""
        for section in parts:
            gap = 3 if section.code.startswith(("def ", "class ", "@")) else 2
            code += ("\n" * gap if code else "") + section.code
            if fault := _syntax(section):
                problems.append(
                    Problem(
                        self.root / section.file,
                        section.line + fault[0] - 1,
                        f"section `{section.name}` is not Python: {fault[1]}",
                        "correct it: each section must be whole",
                    )
                )
        return "\n\n".join(filter(None, [code, _calls(parts)])), problems

    def unused(self, pages: list[Page], shown: set[str] = frozenset()) -> list[Problem]:
        """Return a problem for each section that no page shows.

        `shown` are files whose sections are shown otherwise: in exercises.
        """
        used = {inc for page in pages for cell in page.cells for inc in includes(cell)}
        return [
            Problem(
                self.root / file,
                section.line - 1,
                f"section `{name}` is shown by no page",
                "include it in a page or remove its marks",
            )
            for file, found in self.files.items()
            for name, section in found.items()
            if (file, name) not in used and file not in shown
        ]


def includes(block: Block) -> list[tuple[str, str]]:
    """Return (file, section) of each include line of a fence."""
    return [(m["file"], m["section"]) for x in block.lines if (m := INCLUDE.match(x))]


def _syntax(section: Section) -> tuple[int, str] | None:
    try:
        ast.parse(section.code)
    except SyntaxError as error:
        return error.lineno or 1, error.msg
    return None


def _calls(parts: list[Section]) -> str:
    """Return the lines that call the tests a cell defines: the reader sees them run."""
    calls = []
    for section in parts:
        if section.file.startswith("tests/"):
            try:
                tree = ast.parse(section.code)
            except SyntaxError:
                continue
            calls += [
                f"{node.name}()"
                for node in tree.body
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
            ]
    return "\n".join(calls)
