"""What is wrong, where, and what to do: the one form in which every fault is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, order=True)
class Problem:
    """A fault in a source file."""

    path: Path
    line: int
    what: str
    remedy: str

    def __str__(self) -> str:
        """Show as `file:line: what` with the remedy below."""
        path = self.path
        if path.is_absolute() and path.is_relative_to(ROOT):
            path = path.relative_to(ROOT)
        return f"{path}:{self.line}: {self.what}\n    → {self.remedy}"


class Stop(Exception):
    """Ends a command with its problems, or with one plain sentence."""

    def __init__(self, problems: Iterable[Problem] | str) -> None:
        """Keep the problems; a string is a sentence that needs no place."""
        self.problems = [] if isinstance(problems, str) else sorted(set(problems))
        self.sentence = problems if isinstance(problems, str) else ""
        super().__init__(str(self))

    def __str__(self) -> str:
        """Show every problem, then how many there are."""
        if self.sentence:
            return self.sentence
        count = len(self.problems)
        told = "\n".join(map(str, self.problems))
        return f"{told}\n{count} problem{'s' if count != 1 else ''}; nothing was published."


def stop_if(problems: Iterable[Problem]) -> None:
    """Raise Stop when there is any problem."""
    problems = list(problems)
    if problems:
        raise Stop(problems)
