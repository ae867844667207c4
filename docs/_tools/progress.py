"""pytest plugin of the run: tells n of N, keeps good notebooks, records the faults."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from docs._tools import execute


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report):
    """Print no dots: the lines below say more."""
    return (report.outcome if report.when == "call" else "", "", "")


class Progress:
    """Counts notebooks as they end."""

    def __init__(self, total: int) -> None:
        """Begin at nothing of `total`."""
        self.total, self.done, self.start = total, 0, time.monotonic()
        self.faults: list[dict] = []

    def pytest_runtest_logreport(self, report) -> None:
        """Judge a notebook as soon as it has run (in the controller, not a worker)."""
        if report.when != "call":
            return
        self.done += 1
        path = Path(str(report.fspath))
        path = path if path.is_absolute() else Path.cwd() / path
        failure = str(report.longrepr) if report.failed else None
        if report.failed and hasattr(report.longrepr, "reprcrash"):
            failure += str(report.longrepr.reprcrash)
        faults = execute.verdict(path, failure)
        page = nbformat.read(path, 4).metadata["guide"]["page"]
        if faults:
            self.faults += faults
            Path(os.environ["GUIDE_FAILURES"]).write_text(
                json.dumps(self.faults), "utf-8"
            )
        else:
            execute.accept(path, report.duration)
        since = time.monotonic() - self.start
        print(
            f"  [{self.done:>3}/{self.total}] {page}: "
            f"{'FAILED' if faults else 'ran'} in {report.duration:.0f} s ({since:.0f} s so far)",
            flush=True,
        )


def _remember_cells() -> None:
    """Write down which cell runs: a kernel that dies takes the notebook's own record along."""
    execute_cell = NotebookClient.async_execute_cell

    async def remembered(self, cell, cell_index, *args, **kwargs):
        Path(self.nb.metadata["guide"]["at"]).write_text(str(cell_index), "utf-8")
        return await execute_cell(self, cell, cell_index, *args, **kwargs)

    NotebookClient.async_execute_cell = remembered


def pytest_configure(config) -> None:
    """Count in the controller only; workers note the cell they are at."""
    _remember_cells()
    os.environ.pop("PYTHONPATH", None)  # ours: a reader's kernel does not have it
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(len(config.args)), "guide-progress")
