"""Watch the functions of snippets/ and compare each tensor's name with its shape.

A name ends in `_` and one capital letter per axis (`score_BHTS`); a digit stands for
an axis of that size. Within one call a letter has one size, and a variable named by a
bare letter (`T`) holds that size. In a main block this holds for each section: readers
meet them one by one, and sections of questions stand alone. A tensor with axes but without a suffix is a lie too,
unless its name ends in `_any`: code for tensors of every shape says so.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from docs._tools.includes import MARK

SNIPPETS = str(Path(__file__).parent.parent / "snippets")
SUFFIX = re.compile(r"_([A-Z0-9]+)$")
# Names that tools put into a frame, and the parameters of nn.Module's own kind.
FREE = {"self", "_"}


class ShapeNames:
    """Context manager; afterwards `lies` holds one sentence per name that lied."""

    def __init__(self, folder: str = SNIPPETS) -> None:
        """Watch the files below `folder`."""
        self.folder = folder
        self.lies: list[str] = []
        self._before = self._raising = None

    def __enter__(self) -> ShapeNames:
        """Begin to watch."""
        self._before = sys.gettrace()
        sys.settrace(self._on_call)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        sys.settrace(self._before)

    def _on_call(self, frame, event: str, arg: object):
        """Follow only frames of the folder, and those not line by line: it costs little."""
        file = frame.f_code.co_filename
        # Exhibits of the seed are shown as their author wrote them.
        if not file.startswith(self.folder) or file.endswith("_seed.py"):
            return None
        frame.f_trace_lines = False
        return self._on_return

    def _on_return(self, frame, event: str, arg: object):
        if event == "exception":
            self._raising = frame
        elif event == "return" and self._refuses(frame, arg):
            self._raising = None  # refused arguments may well have a wrong shape
        elif event == "return":
            code = frame.f_code
            parts = [frame.f_locals]
            if code.co_name == "<module>":
                parts = by_section(Path(code.co_filename), frame.f_locals)
            where = f"{Path(code.co_filename).name}:{code.co_name}"
            self.lies += [f"{where}: {lie}" for part in parts for lie in lies_of(part)]
        return self._on_return

    def _refuses(self, frame, arg: object) -> bool:
        """Whether a frame ends by an exception; a module that caught one goes on."""
        inner = frame.f_code.co_name != "<module>"
        return inner and self._raising is frame and arg is None


def by_section(file: Path, names: dict[str, object]) -> list[dict[str, object]]:
    """Return a module's names in groups, each of those last assigned in one section."""
    lines = file.read_text("utf-8").splitlines()
    section, at = "", []
    for line in lines:
        if mark := MARK.match(line):
            section = mark["name"] if mark["edge"] == "start" else ""
        at.append(section)
    where: dict[str, tuple[int, str]] = {}
    for name, number in _assigned(ast.parse("\n".join(lines))):
        if number >= where.get(name, (0, ""))[0]:
            where[name] = number, at[number - 1]
    groups: dict[str, dict[str, object]] = {}
    for name, value in names.items():
        if not name.startswith("__"):
            _, section = where.get(name, (0, ""))
            groups.setdefault(section, {})[name] = value
    return list(groups.values())


def _assigned(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Give (name, line) of each assignment, functions and classes aside."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id, child.lineno
        elif not isinstance(child, (ast.FunctionDef, ast.ClassDef, ast.Lambda)):
            yield from _assigned(child)


def lies_of(names: dict[str, object]) -> list[str]:
    """Return a sentence for each name whose suffix and value disagree."""
    lies = []
    sizes = {
        n: v for n, v in names.items() if re.fullmatch("[A-Z]", n) and type(v) is int
    }
    for name, value in names.items():
        found = SUFFIX.search(name)
        suffix = found[1] if found and not name.isupper() else None
        for tensor in _tensors(value):
            if name in FREE or name.startswith(".") or name.endswith("_any"):
                continue
            shape = tuple(tensor.shape)
            if suffix is None:
                if shape:
                    lies.append(f"`{name}` has shape {shape} and no suffix for it")
            elif len(suffix) != len(shape):
                lies.append(f"`{name}` has shape {shape}, not {len(suffix)} axes")
            else:
                lies += _axes(name, suffix, shape, sizes)
    return lies


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [item for item in value if isinstance(item, Tensor)]
    return []


def _axes(name: str, suffix: str, shape: tuple, sizes: dict[str, int]) -> list[str]:
    lies = []
    for axis, size in zip(suffix, shape, strict=True):
        meant = int(axis) if axis.isdigit() else sizes.setdefault(axis, size)
        if meant != size:
            lies.append(f"`{name}` has shape {shape}, but {axis} is {meant}")
    return lies
