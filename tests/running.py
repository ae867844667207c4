"""Run a snippet's main block as a reader would, and keep what it printed."""

from __future__ import annotations

import contextlib
import io
import runpy
from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True)
class RunResult:
    """What a run left: its standard output and its global names."""

    output: str
    names: dict[str, object]


def run_main(module: str) -> RunResult:
    """Run `module` (dotted name) with `__name__ == "__main__"`."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        names = runpy.run_path(find_spec(module).origin, run_name="__main__")
    return RunResult(out.getvalue(), names)
