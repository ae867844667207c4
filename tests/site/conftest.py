"""The built site, served; and a browser to look at it with."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from bs4 import BeautifulSoup

from docs._tools.guide import LANGUAGES, Guide
from docs._tools.pages import load

ROOT = Guide().root
SITE = Path(os.environ.get("SITE_DIR", ROOT / "site"))
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
# One page of each kind, by its key.
KINDS = {
    "home": "index",
    "part": "implementations/index",
    "question": "questions/basics/what_is_attention",
    "implementation": "implementations/foundations/scaled_dot_product",
    "application": "applications/sequence_labelling",
    "table": "about/seed",
    "glossary": "about/glossary",
    "practice": "practice/kit",
    "exercises": "practice/exercises",
}


def address(key: str, language: str) -> str:
    """Return where a page stands below the site's root."""
    path = key.removesuffix("index").rstrip("/")
    return ("" if language == "zh" else "en/") + (f"{path}/" if path else "")


@dataclass(frozen=True)
class Built:
    """One page of the built site."""

    language: str
    key: str
    path: Path
    html: str = field(repr=False)
    soup: BeautifulSoup = field(repr=False)

    @property
    def where(self) -> str:
        """Its address below the root, for messages."""
        return address(self.key, self.language)


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder that `make site` builds (SITE_DIR names another)."""
    if not (SITE / "index.html").exists():
        pytest.fail("site/ is not built: run `make site` first", pytrace=False)
    return SITE


@pytest.fixture(scope="session")
def built(site: Path) -> list[Built]:
    """Every page of both languages, read once."""
    pages = []
    for key in load(Guide()):
        for language in LANGUAGES:
            path = site / address(key, language) / "index.html"
            assert path.exists(), (
                f"{key} is not in the {language} site; run `make site`"
            )
            html = path.read_text("utf-8")
            pages.append(
                Built(language, key, path, html, BeautifulSoup(html, "html.parser"))
            )
    return pages


@pytest.fixture(scope="session")
def prefix(site: Path) -> str:
    """The path below which the site was built to stand, `/` or `/name/`."""
    soup = BeautifulSoup((site / "index.html").read_text("utf-8"), "html.parser")
    return urlsplit(soup.select_one("link[rel=canonical]")["href"]).path or "/"


class _Handler(http.server.SimpleHTTPRequestHandler):
    prefix = "/"

    def translate_path(self, path: str) -> str:
        """Take the prefix off; what stands outside it does not exist."""
        if not path.startswith(self.prefix):
            return os.devnull + "/nowhere"
        return super().translate_path("/" + path[len(self.prefix) :])

    def send_error(self, code, message=None, explain=None):
        """Show the site's own page for what is missing, as hosts do."""
        page = Path(self.directory) / "404.html"
        if code != 404 or not page.exists():
            return super().send_error(code, message, explain)
        body = page.read_bytes()
        self.send_response(404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture(scope="session")
def base(site: Path, prefix: str):
    """The address at which the site is served during the tests."""
    handler = type("Handler", (_Handler,), {"prefix": prefix})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(site))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}{prefix}"
    server.shutdown()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """One Chromium for all browser tests."""
    if not CHROMIUM or not Path(CHROMIUM).exists():
        pytest.skip("no Chromium here: install it, or set CHROMIUM to its path")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, base):
    """A function that opens a page in a fresh context; all are closed at the end."""
    contexts = []

    def opened(where: str, *, width: int = 1280, scheme: str = "light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.goto(base + where)
        return page

    yield opened
    for context in contexts:
        context.close()
