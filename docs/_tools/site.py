"""Build both languages; publish only what is whole."""

from __future__ import annotations

import json
import logging
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import jieba
from mkdocs.commands.build import build as mkdocs_build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort, MkDocsException

from docs._tools import glossary_page, maths
from docs._tools.check import check
from docs._tools.execute import Runner
from docs._tools.guide import LANGUAGES, Guide
from docs._tools.pages import each, load
from docs._tools.problems import Problem, Stop, stop_if

CONFIG = {"zh": "mkdocs.yml", "en": "mkdocs.en.yml"}


def check_all(guide: Guide) -> list[Problem]:
    """Return all problems of the sources, formulas included."""
    formulas = [p for page in each(load(guide)) for p in maths.check(page)]
    return sorted({*check(guide), *formulas})


def build(
    guide: Guide,
    *,
    gpu_record: str | None = None,
    device: str = "cpu",
    pdf: bool = False,
) -> Path:
    """Check, run what has to run, build both languages, then publish them at once."""
    stop_if(check_all(guide))
    stop_if(Runner(guide, device).run())
    site = publish(guide, guide.site, gpu_record=gpu_record, pdf=pdf)
    if pdf:
        from docs._tools.pdf import write  # needs the packages of the group `test`

        write(guide, site)
    return site


def publish(
    guide: Guide,
    target: Path,
    *,
    gpu_record: str | None = None,
    strict: bool = True,
    pdf: bool = False,
) -> Path:
    """Build both languages beside `target` and put them in its place when whole.

    `strict` stops on MkDocs' warnings; `make serve` shows the page all the same. `pdf`
    says that the PDFs will be written beside it, so that pages link them.
    """
    guide.build.mkdir(exist_ok=True)
    (guide.build / "jieba.txt").write_text(
        glossary_page.search_dictionary(guide), "utf-8"
    )
    gpu = _record(gpu_record) if gpu_record else {}
    parts = {
        language: guide.build / f"{target.name}-{language}" for language in LANGUAGES
    }
    # Each language in a process of its own: two cores, and MkDocs keeps global state.
    with ProcessPoolExecutor(len(parts), mp_context=get_context("spawn")) as pool:
        builds = [
            pool.submit(_build_language, guide, language, folder, gpu, strict, pdf)
            for language, folder in parts.items()
        ]
        faults = [fault for build in builds if (fault := build.exception())]
    for fault in faults:
        if not isinstance(fault, Stop):
            raise fault
    if faults:
        raise Stop("\n".join(map(str, faults)))
    original, *others = LANGUAGES
    fresh = parts[original]
    for language in others:
        shutil.rmtree(fresh / language, ignore_errors=True)
        os.rename(parts[language], fresh / language)
    old = guide.build / f"{target.name}-old"
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.rename(target, old)
    os.rename(fresh, target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def _record(path: str) -> dict:
    """Return what ran on a GPU, {page: device and versions}."""
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Stop(
            f"--gpu-record {path}: {error}. Give a file that `run --record` wrote, or leave "
            "the option out: pages then say that they have not run on a GPU."
        ) from error


def _build_language(
    guide: Guide, language: str, folder: Path, gpu: dict, strict: bool, pdf: bool
) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("mkdocs").setLevel(logging.WARNING)
    jieba.setLogLevel(logging.WARNING)
    try:
        config = load_config(str(guide.root / CONFIG[language]), site_dir=str(folder))
        config["extra"] |= {"gpu": gpu, "pdf": pdf}
        counter = _Warnings()
        logging.getLogger("mkdocs").addHandler(counter)
        try:
            config.plugins.on_startup(command="build", dirty=False)
            mkdocs_build(config)
        finally:
            logging.getLogger("mkdocs").removeHandler(counter)
            config.plugins.on_shutdown()
    except (Abort, MkDocsException) as error:
        raise Stop(f"The {language} site could not be built: {error}") from error
    if counter.told and strict:
        told = "\n".join(counter.told)
        raise Stop(
            f"MkDocs warned while building the {language} site, so nothing was "
            f"published. Correct what it names:\n{told}"
        )


class _Warnings(logging.Handler):
    """Collects MkDocs' warnings: strict mode that also says what was wrong."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(f"  {record.getMessage()}")
