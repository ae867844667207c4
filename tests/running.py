"""Run a snippet's main block as a reader would, and keep what it printed."""

from __future__ import annotations

import contextlib
import io
import runpy
from dataclasses import dataclass
from importlib.util import find_spec

from tests.shape_names import ShapeNames


@dataclass(frozen=True)
class RunResult:
    """What a run left: its standard output and its global names."""

    output: str
    names: dict[str, object]


def run_main(module: str) -> RunResult:
    """Run `module` (dotted name) with `__name__ == "__main__"`.

    Raises AssertionError when a name lies about its tensor's shape (CODE-1): a fixture
    of a whole file runs before the watcher of each test is there.
    """
    out = io.StringIO()
    with contextlib.redirect_stdout(out), ShapeNames() as watch:
        names = runpy.run_path(find_spec(module).origin, run_name="__main__")
    assert not watch.lies, "names that lie about shapes:\n" + "\n".join(watch.lies)
    return RunResult(out.getvalue(), names)
