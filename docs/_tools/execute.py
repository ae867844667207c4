"""Run the notebooks under nbmake and keep what they printed, keyed by what they ran."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from docs._tools import notebooks
from docs._tools.guide import Guide
from docs._tools.includes import Library
from docs._tools.pages import Page, load
from docs._tools.problems import Problem, Stop

TIME_LIMIT = 60  # seconds a cell may take unless its page says otherwise
NO_KERNEL = (
    "The Python kernel that runs the notebooks does not start. Remove .venv and run make "
    "again; if it still fails, `.venv/bin/python -m ipykernel_launcher` says why."
)
ANSI = re.compile(r"\x1b\[[0-9;]*m")
KERNEL_STYLE = Path(__file__).parent / "kernel"


def name_of(key: str) -> str:
    """Return the file name for a page's key."""
    return key.replace("/", "--")


def device_name(device: str) -> str:
    """Return the model of the GPU, or 'CPU'."""
    if device == "cpu":
        return "CPU"
    import torch

    if not torch.cuda.is_available():
        raise Stop(
            "--device cuda: torch sees no CUDA device here. Run without --device."
        )
    return torch.cuda.get_device_name()


@dataclass(frozen=True)
class Runner:
    """Runs the pages of one guide on one device."""

    guide: Guide
    device: str = "cpu"
    workers: int = 0

    @cached_property
    def library(self) -> Library:
        """Every section, read once."""
        return Library.read(self.guide)

    @cached_property
    def environment(self) -> dict[str, str]:
        """What, besides the code, decides about an output."""

        def of(name: str) -> str:
            try:
                return version(name)
            except PackageNotFoundError:
                return "missing"

        return {
            "device": device_name(self.device),
            "python": platform.python_version(),
            "torch": of("torch"),
            "numpy": of("numpy"),
            "matplotlib": of("matplotlib"),
        }

    def pages(self) -> dict[str, Page]:
        """Return {key: the page that is run} of all pages with cells."""
        return {
            key: pair.get("zh") or pair["en"]
            for key, pair in load(self.guide).items()
            if (pair.get("zh") or pair["en"]).cells
        }

    def cache_key(self, page: Page) -> str:
        """Return the key of a page's outputs: cells, tags, limit and environment."""
        parts = [
            notebooks.code_of(page, self.library),
            [b.tags for b in page.cells],
            page.meta.get("packages"),
            self.environment,
        ]
        style = [
            p.read_text("utf-8") for p in sorted(KERNEL_STYLE.rglob("*")) if p.is_file()
        ]
        return hashlib.sha256(json.dumps([parts, style]).encode()).hexdigest()[:16]

    def path(self, key: str) -> Path:
        """Return where the executed notebook of a page is kept."""
        return self.guide.executed / f"{name_of(key)}.ipynb"

    def cached(self, page: Page) -> NotebookNode | None:
        """Return the executed notebook of a page if it is that of the page as it is."""
        path = self.path(page.key)
        if not path.exists():
            return None
        try:
            notebook = nbformat.read(path, 4)
        except (nbformat.reader.NotJSONError, OSError):
            return None
        fits = notebook.metadata.get("guide", {}).get("key") == self.cache_key(page)
        return notebook if fits else None

    def stale(self) -> list[Page]:
        """Return the pages that have to run, those with the longest limit first."""
        pages = [page for page in self.pages().values() if self.cached(page) is None]
        return sorted(pages, key=lambda page: -page.meta.get("time_limit", TIME_LIMIT))

    def prepare(self, page: Page) -> Path:
        """Write the notebook to run, alone in an empty folder."""
        folder = self.guide.build / "run" / name_of(page.key)
        if folder.exists():
            for path in folder.iterdir():
                if path.is_file():
                    path.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        notebook = notebooks.to_run(page, self.library)
        notebook.metadata["execution"] = {
            "timeout": page.meta.get("time_limit", TIME_LIMIT)
        }
        notebook.metadata["guide"] = {
            "key": self.cache_key(page),
            "page": page.key,
            **self.environment,
            "path": str(page.path),
            "at": str(folder / "cell"),
            "expected": [b.option("raises") for b in page.cells],
            "figures": [bool(b.option("alt")) for b in page.cells],
            "lines": [b.line for b in page.cells],
        }
        path = folder / f"{name_of(page.key)}.ipynb"
        nbformat.write(notebook, path)
        return path

    def run(self, pages: list[Page] | None = None) -> list[Problem]:
        """Run the given pages, or those that are stale; return what went wrong."""
        pages = self.stale() if pages is None else pages
        if not pages:
            return []
        paths = [self.prepare(page) for page in pages]
        failures = self.guide.build / "run" / f"failures-{os.getpid()}.json"
        failures.unlink(missing_ok=True)
        self.guide.executed.mkdir(parents=True, exist_ok=True)
        workers = self.workers or (
            1 if self.device != "cpu" else len(os.sched_getaffinity(0))
        )
        command = [
            sys.executable,
            "-m",
            "pytest",
            "--nbmake",
            "--overwrite",
            "-q",
            "--no-header",
            "-p",
            "docs._tools.progress",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
            "-c",
            os.devnull,
            "--rootdir",
            str(self.guide.build / "run"),
            f"--nbmake-timeout={TIME_LIMIT}",
            "--tb=no",
            "--no-summary",
            "-n",
            str(min(workers, len(paths))),
            "--dist=load",
            "--maxschedchunk=1",
            *map(str, paths),
        ]
        environment = os.environ | {
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "GUIDE_EXECUTED": str(self.guide.executed),
            "GUIDE_FAILURES": str(failures),
            "IPYTHONDIR": str(_kernel_settings(self.guide)),
            "MATPLOTLIBRC": str(KERNEL_STYLE / "matplotlibrc"),
            "OMP_WAIT_POLICY": "PASSIVE",
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            "NO_COLOR": "1",
        }
        if self.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        code, said = _stream(command, environment, self.guide.build / "run")
        told = json.loads(failures.read_text("utf-8")) if failures.exists() else []
        failures.unlink(missing_ok=True)
        if any(fault["what"] == NO_KERNEL for fault in told):
            raise Stop(NO_KERNEL)
        problems = [
            Problem(Path(p["path"]), p["line"], p["what"], p["remedy"]) for p in told
        ]
        if code not in (0, 1) or (code and not problems):
            problems.append(
                Problem(
                    self.guide.build / "run",
                    0,
                    f"the notebooks could not be run (pytest ended with {code})",
                    f"its last words: {said[-2000:]}",
                )
            )
        return problems


RUNNING: set[subprocess.Popen] = set()


def end_runs() -> None:
    """End the runs under way: whoever ends the server does not want them to go on."""
    for process in list(RUNNING):
        process.terminate()


def _stream(command: list[str], environment: dict, folder: Path) -> tuple[int, str]:
    """Run pytest, show its progress lines as they come, keep the rest for a fault."""
    said = []
    with subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        RUNNING.add(process)
        for line in process.stdout:
            if line.startswith("  ["):
                print(line, end="", flush=True)
            else:
                said.append(line)
        RUNNING.discard(process)
    return process.returncode, "".join(said)


def _kernel_settings(guide: Guide) -> Path:
    """Make the IPython folder of the kernels: how figures are saved, no history."""
    folder = guide.build / "ipython"
    profile = folder / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text(
        (KERNEL_STYLE / "ipython_kernel_config.py").read_text("utf-8"), "utf-8"
    )
    return folder


def verdict(path: Path, failure: str | None) -> list[dict]:
    """Return what is wrong with a notebook that has run, each fault with its place.

    `failure` is nbmake's message, None when every cell ended as nbmake expects.
    """
    notebook = nbformat.read(path, 4)
    about = notebook.metadata["guide"]
    limit = notebook.metadata["execution"]["timeout"]

    def fault(number: int, what: str, remedy: str) -> dict:
        return {
            "path": about["path"],
            "line": about["lines"][number],
            "what": what,
            "remedy": remedy,
        }

    if failure and "DeadKernelError" in failure:
        return [
            fault(
                int(Path(about["at"]).read_text("utf-8")),
                f"the kernel of {about['page']} died (memory, or a crash in native code)",
                "run the page's cells one by one to find which; make it smaller",
            )
        ]
    if failure and "timed out" in failure:
        return [
            fault(
                int(Path(about["at"]).read_text("utf-8")),
                f"the cell ran longer than {limit} s",
                "make it smaller, or set `time_limit:` on an application page",
            )
        ]
    if failure and re.search(
        "died before replying|No such kernel|kernel_info", failure
    ):
        return [fault(0, NO_KERNEL, "")]
    faults = []
    for number, cell in enumerate(notebook.cells):
        errors = [o for o in cell.outputs if o.output_type == "error"]
        expected = about["expected"][number]
        if errors and errors[0].ename != expected:
            what = f"the cell raised {errors[0].ename}: {errors[0].evalue}"
            if expected:
                what += f" (expected {expected})"
            faults.append(fault(number, what, _where(errors[0])))
        elif expected and not errors and cell.get("execution_count"):
            faults.append(
                fault(
                    number,
                    f"{expected} was expected and did not come",
                    "correct the cell, or remove tags and raises",
                )
            )
        figures = sum(
            "image/svg+xml" in o.get("data", {}) or "image/png" in o.get("data", {})
            for o in cell.outputs
        )
        if figures != about["figures"][number] and not errors and not failure:
            faults.append(
                fault(
                    number,
                    f"the cell draws {figures} figures and has "
                    f"{int(about['figures'][number])} alt texts",
                    'draw one figure in a cell and describe it: ```python alt="…"',
                )
            )
    if failure and not faults:
        last = ANSI.sub("", failure).strip().splitlines()[-1][:300]
        faults.append(
            fault(0, f"the notebook could not be run: {last}", "see the message above")
        )
    return faults


def _where(error: NotebookNode) -> str:
    """Return the last lines of a traceback that show the reader's own code."""
    text = ANSI.sub("", "\n".join(error.traceback))
    arrows = [
        line.strip()
        for line in text.splitlines()
        if line.startswith("-") and "->" in line.split(" ")[0]
    ]
    return (
        f"it happened at: {arrows[-1]}"
        if arrows
        else "run the page's notebook to see where"
    )


def accept(path: Path, seconds: float) -> None:
    """Keep an executed notebook that has no fault."""
    notebook = nbformat.read(path, 4)
    notebook.metadata["guide"]["seconds"] = round(seconds, 1)
    target = Path(os.environ["GUIDE_EXECUTED"]) / path.name
    part = target.with_suffix(".part")
    nbformat.write(notebook, part)
    os.replace(part, target)
