"""The question bank of each language as one PDF, printed from the built site."""

from __future__ import annotations

import functools
import http.server
import io
import os
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

from docs._tools import bank
from docs._tools.guide import LANGUAGES, Guide
from docs._tools.pages import load
from docs._tools.problems import Stop

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run"]
MARGIN = {"top": "16mm", "bottom": "18mm", "left": "16mm", "right": "16mm"}
FOOT = (
    '<div style="font-size:8px;width:100%;text-align:center">'
    '<span class="pageNumber"></span> / <span class="totalPages"></span></div>'
)


def write(guide: Guide, site: Path) -> list[Path]:
    """Print the built site's themes into it; return the files, one a language.

    Raises Stop when there is no site or no Chromium.
    """
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        raise Stop("no Chromium: install it, or name it in the variable CHROMIUM")
    if not (site / "questions").is_dir():
        raise Stop(f"{site} holds no site: run `make site` first")
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=FLAGS)
        written = print_bank(browser, guide, site, site)
        browser.close()
    return written


def print_bank(browser, guide: Guide, site: Path, target: Path) -> list[Path]:
    """Print the themes of `site` with a browser, one file a language below `target`."""
    from pypdf import PdfWriter

    pages, written = load(guide), []
    with _served(site) as base:
        for language in LANGUAGES:
            alone = {k: pair[language] for k, pair in pages.items() if language in pair}
            whole = PdfWriter()
            prefix = "" if language == LANGUAGES[0] else f"{language}/"
            for theme in bank.themes(alone):
                sheet = browser.new_page()
                sheet.goto(f"{base}{prefix}questions/{theme.room}/print/")
                part = sheet.pdf(
                    format="A4",
                    margin=MARGIN,
                    display_header_footer=True,
                    header_template="<span></span>",
                    footer_template=FOOT,
                    tagged=True,
                )
                sheet.close()
                whole.append(io.BytesIO(part), outline_item=theme.title)
            path = target / prefix / f"attention-guide-{language}.pdf"
            path.parent.mkdir(parents=True, exist_ok=True)
            whole.compress_identical_objects()
            whole.write(path)
            written.append(path)
    return written


@contextmanager
def _served(folder: Path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
