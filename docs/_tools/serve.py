"""Serve both languages at once, run notebooks behind, rebuild what an edit touches."""

from __future__ import annotations

import html
import signal
import socket
import threading
import time
import traceback
from pathlib import Path

from mkdocs.livereload import LiveReloadServer

from docs._tools.execute import Runner, end_runs
from docs._tools.guide import Guide
from docs._tools.problems import Stop
from docs._tools.site import check_all, publish

WATCHED = ("docs", "snippets", "tests", "mkdocs.yml", "mkdocs.en.yml")


def serve(guide: Guide, port: int) -> None:
    """Serve on 127.0.0.1 until interrupted."""
    for sign in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # a job in the background ignores SIGINT
        signal.signal(sign, signal.default_int_handler)
    _port_is_free(port)
    start = time.monotonic()
    target = guide.build / "served"
    faults = Faults(guide)
    faults.tell()
    _first_site(guide, target)
    wake = threading.Event()

    def rebuild() -> None:
        began = time.monotonic()
        try:
            faults.tell()
            publish(guide, target, strict=False)
            print(f"  rebuilt in {time.monotonic() - began:.1f} s", flush=True)
            wake.set()
        except Stop as stop:
            print(f"{stop}\n  the pages shown are those before this fault", flush=True)
        except Exception:  # an edit must not end the server
            traceback.print_exc()

    server = LiveReloadServer(
        rebuild, "127.0.0.1", port, str(target), shutdown_delay=0.5
    )
    server.error_handler = lambda code: (
        (target / "404.html").read_bytes() if code == 404 else None
    )
    for name in WATCHED:
        server.watch(str(guide.root / name))
    guide.executed.mkdir(parents=True, exist_ok=True)
    server.watch(str(guide.executed))
    threading.Thread(target=_run_behind, args=(guide, wake), daemon=True).start()
    wake.set()
    print(
        f"中文     http://127.0.0.1:{port}/\nEnglish  http://127.0.0.1:{port}/en/\n"
        f"ready after {time.monotonic() - start:.1f} s; Ctrl-C ends it",
        flush=True,
    )
    try:
        server.serve()
    except KeyboardInterrupt:
        print("ended")
    finally:
        end_runs()
        server.shutdown()


def _first_site(guide: Guide, target: Path) -> None:
    """Build what can be built, faults or not; say on the page what keeps it from building."""
    try:
        publish(guide, target, strict=False)
    except Stop as stop:
        print(stop, flush=True)
        target.mkdir(parents=True, exist_ok=True)
        said = html.escape(str(stop))
        (target / "index.html").write_text(
            f'<!doctype html><meta charset="utf-8"><title>fault</title><pre>{said}</pre>',
            "utf-8",
        )


class Faults:
    """Tells what is wrong with the sources, once until something about it changes."""

    def __init__(self, guide: Guide) -> None:
        """Begin with nothing told."""
        self.guide, self.last = guide, ""

    def tell(self) -> None:
        """Print the problems if they are others than last time."""
        problems = check_all(self.guide)
        said = str(Stop(problems)) if problems else ""
        if said != self.last:
            said = said or "the sources are in order again"
            print(
                said.replace("nothing was published", "`make site` would stop"),
                flush=True,
            )
        self.last = said if problems else ""


def _run_behind(guide: Guide, wake: threading.Event) -> None:
    """Run stale notebooks whenever something has changed; each failure is told once."""
    failed: dict[str, str] = {}
    while True:
        wake.wait()
        wake.clear()
        try:
            runner = Runner(guide)
            stale = [
                page
                for page in runner.stale()
                if failed.get(page.key) != runner.cache_key(page)
            ]
            if not stale:
                continue
            print(
                f"running {len(stale)} notebooks behind; their pages fill in as they end",
                flush=True,
            )
            problems = runner.run(stale)
            if problems:
                print(Stop(problems), flush=True)
            still = {page.key for page in runner.stale()}
            failed |= {p.key: runner.cache_key(p) for p in stale if p.key in still}
        except Stop as stop:
            print(stop, flush=True)
        except Exception:
            traceback.print_exc()


def _port_is_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Stop(
                f"Port {port} is taken. End what uses it, or choose another: "
                f"make serve PORT={port + 1}"
            ) from error
