"""The weights and times that design.md grants, beside what this machine measures."""

from __future__ import annotations

import gzip
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from docs._tools.execute import Runner
from docs._tools.guide import LANGUAGES, Guide
from docs._tools.problems import Stop

HTML_KB, APPLICATION_KB, FIRST_LOAD_KB = 40, 50, 200  # ADR 16
PAGE_SECONDS, APPLICATION_SECONDS, LONG_SECONDS = 60, 150, 300
REFERENCE = re.compile(r"""(?:src|href)=["']?([^"'\s>]+)|url\(["']?([^"')]+)""")
LOADED = (".css", ".js", ".woff2", ".png", ".ico", ".svg")


@dataclass(frozen=True)
class Weight:
    """One page of the built site in bytes."""

    path: Path
    html: int
    first_load: int


def weights(site: Path) -> list[Weight]:
    """Return the weight of every page: its HTML, and with all it loads, gzipped."""
    return [
        Weight(
            page.relative_to(site),
            len(page.read_bytes()),
            sum(_gzipped(file) for file in {page, *loaded_by(page, site)}),
        )
        for page in sorted(site.rglob("*.html"))
    ]


def loaded_by(page: Path, site: Path) -> set[Path]:
    """Return the files a browser fetches for a page: named in it, or in its styles.

    Left out are pictures in the text (they load when they come into view) and the search
    index (it loads when the search is used); the search's worker is in.
    """
    text = re.sub(
        r"<img[^>]*loading=.?lazy[^>]*>|<a [^>]*>", "", page.read_text("utf-8")
    )
    root = site / "en" if page.is_relative_to(site / "en") else site
    files = set(root.glob("assets/javascripts/workers/*.js"))
    files |= set(_named(text, page.parent, site))
    for style in [f for f in files if f.suffix == ".css"]:
        files |= set(_named(style.read_text("utf-8"), style.parent, site))
    return {file for file in files if file.is_file()}


def _named(text: str, folder: Path, site: Path) -> Iterator[Path]:
    for match in REFERENCE.finditer(text):
        path = urlsplit(match[1] or match[2]).path
        if path.endswith(LOADED):
            base = site if path.startswith("/") else folder
            yield (base / path.lstrip("/")).resolve()


def _gzipped(file: Path) -> int:
    if file.suffix == ".woff2":  # compressed already, and served as it is
        return file.stat().st_size
    return len(gzip.compress(file.read_bytes(), 6, mtime=0))


def report(guide: Guide) -> int:
    """Print the table; return 1 when something is over its budget."""
    if not (guide.site / "index.html").exists():
        raise Stop("there is no site/ to weigh: run `make site` first")
    rows = [*_weight_rows(guide), *_time_rows(guide)]
    width = max(len(row[0]) for row in rows)
    print(f"{'':{width}}  {'measured':>10}  {'at most':>10}")
    over = False
    for name, measured, most, unit in rows:
        is_over = measured is not None and measured > most
        over |= is_over
        shown = "not known" if measured is None else f"{measured:.0f} {unit}"
        print(
            f"{name:{width}}  {shown:>10}  {f'{most} {unit}':>10}{'  OVER' if is_over else ''}"
        )
    return int(over)


def _weight_rows(guide: Guide) -> Iterator[tuple]:
    everyone = weights(guide.site)
    load = max(everyone, key=lambda w: w.first_load)
    for applied, limit in ((False, HTML_KB), (True, APPLICATION_KB)):
        kind = [w for w in everyone if ("applications" in w.path.parts) is applied]
        if kind:
            html = max(kind, key=lambda w: w.html)
            yield f"heaviest HTML: {html.path.parent}", html.html / 1000, limit, "KB"
    yield (
        f"heaviest first load: {load.path.parent}",
        load.first_load / 1000,
        FIRST_LOAD_KB,
        "KB",
    )


def _time_rows(guide: Guide) -> Iterator[tuple]:
    runner = Runner(guide)
    seconds = {}
    for key, page in runner.pages().items():
        if (notebook := runner.cached(page)) is not None:
            seconds[key] = notebook.metadata["guide"]["seconds"]
    for key in sorted(seconds, key=lambda k: -seconds[k])[:3]:
        limit = runner.pages()[key].meta.get("time_limit", PAGE_SECONDS)
        yield f"slow page: {key}", seconds[key], limit, "s"
    yield (
        f"all {len(seconds)} notebooks, one after another",
        sum(seconds.values()),
        1200,
        "s",
    )
    served = _seconds_to_first_page(guide)
    installed = _read_seconds(guide.root / ".venv/installed")
    yield "second `make serve` to the first page", served, 30, "s"
    first = None if installed is None else installed + served
    yield "first `make serve` (its install, then the page)", first, 120, "s"
    yield (
        "last `make test`",
        _read_seconds(guide.build / "last-test-seconds"),
        1200,
        "s",
    )


def _read_seconds(path: Path) -> float | None:
    try:
        return float(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _seconds_to_first_page(guide: Guide) -> float:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "docs._tools", "serve", "--port", str(port)],
        cwd=guide.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=dict(os.environ),
    ) as server:
        try:
            for language in LANGUAGES:
                _wait_for(
                    f"http://127.0.0.1:{port}/{'' if language == 'zh' else 'en/'}",
                    server,
                )
            return time.monotonic() - start
        finally:
            server.terminate()


def _wait_for(url: str, server: subprocess.Popen) -> None:
    while server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=10):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise Stop("`make serve` ended before it showed a page; run it to see why")
