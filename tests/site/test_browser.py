"""The built site as readers meet it: in Chromium, with and without JavaScript."""

from __future__ import annotations

import gzip
import re
from urllib.parse import urlsplit

import nbformat
import pytest
import yaml

from docs._tools.guide import LANGUAGES, Guide
from tests.site.conftest import KINDS, ROOT, address
from tests.site.test_built_site import LOAD_LIMIT

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

QUERIES = yaml.safe_load((ROOT / "tests" / "search_queries.yml").read_text("utf-8"))
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
BEST = 3
CODE = address(KINDS["implementation"], "zh")
each_language = pytest.mark.parametrize("language", LANGUAGES)
each_kind = pytest.mark.parametrize("kind", KINDS)


def path_of(url: str, base: str) -> str:
    """Return an address of the site without its root."""
    return urlsplit(url).path.removeprefix(urlsplit(base).path)


def watch(page, base: str) -> list[str]:
    """Return a list that fills with what goes wrong on the page from now on."""
    faults: list[str] = []
    page.on(
        "console",
        lambda m: (
            faults.append(f"console: {m.text}")
            if m.type in ("error", "warning")
            else None
        ),
    )
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    # A request is aborted when the page is left before its answer: no fault of the page.
    page.on(
        "requestfailed",
        lambda r: (
            faults.append(f"{r.failure}: {r.url}")
            if r.failure != "net::ERR_ABORTED"
            else None
        ),
    )
    page.on(
        "response",
        lambda r: faults.append(f"{r.status}: {r.url}") if r.status >= 400 else None,
    )
    page.on(
        "request",
        lambda r: (
            faults.append(f"another host: {r.url}")
            if urlsplit(r.url).scheme.startswith("http")
            and urlsplit(r.url).netloc != urlsplit(base).netloc
            else None
        ),
    )
    return faults


def scheme_of(page) -> str:
    """Return the color scheme that the page shows."""
    return page.evaluate("document.body.getAttribute('data-md-color-scheme')")


# --- Search ---------------------------------------------------------------------------


def test_there_are_enough_queries():
    for language in LANGUAGES:
        asked = [query for query, _ in QUERIES[language]]
        assert len(asked) == len(set(asked)) >= 30, language
        for _, key in QUERIES[language]:
            assert (Guide().docs / language / f"{key}.md").exists(), key


@each_language
def test_search_finds_the_page_among_the_first_three(language, open_page, base):
    page = open_page(address("index", language))
    field = page.locator(".md-search__input")
    field.focus()
    said = page.evaluate(
        "JSON.parse(document.getElementById('__config').textContent).translations"
    )
    empty, none = said["search.result.placeholder"], said["search.result.none"]
    missed = []
    for query, key in QUERIES[language]:
        field.fill("")
        field.press("End")
        page.wait_for_function(
            "([text]) => document.querySelector('.md-search-result__meta').innerText.trim() === text"
            " && !document.querySelector('.md-search-result__item')",
            arg=[empty],
        )
        field.fill(query)
        field.press("End")
        page.wait_for_function(  # results come after the line that counts them
            "([text]) => document.querySelector('.md-search-result__meta').innerText.trim() === text"
            " || document.querySelector('.md-search-result__item')",
            arg=[none],
        )
        links = page.locator(".md-search-result__item").evaluate_all(
            "all => all.map(item => item.querySelector('a').href)"
        )
        first = [path_of(url, base) for url in links[:BEST]]
        if address(key, language) not in first:
            missed.append(f"{query}: wanted {key}, found {first}")
    rate = 1 - len(missed) / len(QUERIES[language])
    assert not missed, f"{rate:.0%} of the {language} queries hit\n" + "\n".join(missed)


def test_search_index_waits_until_the_search_is_used(open_page):
    page = open_page("")
    asked = []
    page.on("request", lambda r: asked.append(r.url))
    page.reload(wait_until="networkidle")
    assert not [url for url in asked if "search_index" in url]
    page.locator(".md-search__input").focus()
    page.wait_for_event("requestfinished", lambda r: "search_index" in r.url)


# --- Languages, notebooks, code, schemes ----------------------------------------------


@pytest.mark.parametrize("javascript", [True, False])
def test_language_switch_keeps_the_page(javascript, open_page, base):
    page = open_page(CODE, java_script_enabled=javascript)
    title = page.locator("h1").inner_text()
    page.locator("a.g-lang").click()
    page.wait_for_url(f"{base}en/{CODE}")
    assert page.locator("h1").inner_text() != title
    page.locator("a.g-lang").click()
    page.wait_for_url(f"{base}{CODE}")
    assert page.locator("h1").inner_text() == title


@each_language
def test_download_button_gives_the_notebook(language, open_page):
    page = open_page(address(KINDS["implementation"], language))
    with page.expect_download() as download:
        page.locator(".g-bar a[download]").click()
    assert download.value.suggested_filename == "scaled_dot_product.ipynb"
    notebook = nbformat.read(download.value.path(), as_version=4)
    nbformat.validate(notebook)
    assert page.locator("h1").inner_text() in notebook.cells[0].source


def test_copy_button_copies_code_and_outputs_have_none(open_page):
    page = open_page(CODE, permissions=["clipboard-read", "clipboard-write"])
    block = page.locator("article .highlight:not(.output)").first
    block.hover()
    block.locator("button").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == block.locator("code").inner_text().strip()
    assert "import" in copied
    assert page.locator("article .output").count() > 0
    assert page.locator("article .output button").count() == 0


def shown(page, name: str) -> bool:
    """Whether the first picture of a scheme can be seen."""
    return page.locator(f"img.only-{name}").first.is_visible()


def test_dark_mode_switches_persists_and_swaps_figures(open_page, base):
    page = open_page(CODE)
    assert scheme_of(page) == "default"
    assert shown(page, "light")
    assert not shown(page, "dark")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("[data-md-component=palette] label:visible").click()
    page.wait_for_function("document.body.dataset.mdColorScheme === 'slate'")
    assert shown(page, "dark")
    assert not shown(page, "light")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != paper
    page.reload()
    assert scheme_of(page) == "slate"
    page.goto(base + address("index", "en"))
    assert scheme_of(page) == "slate", "the other language forgets the choice"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("javascript", [True, False])
def test_scheme_of_the_system_is_followed(scheme, javascript, open_page):
    page = open_page(CODE, scheme=scheme, java_script_enabled=javascript)
    assert shown(page, scheme)
    assert not shown(page, "dark" if scheme == "light" else "light")
    red = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]"
    )
    assert (int(red) < 80) == (scheme == "dark")


# --- Every page -----------------------------------------------------------------------


def test_no_page_has_a_fault(built, open_page, base):
    page = open_page("")
    faults = watch(page, base)
    wrong = []
    for each in built:
        page.goto(base + each.where, wait_until="load")
        wrong += [f"{each.where or '/'}: {fault}" for fault in faults]
        faults.clear()
    assert not wrong, "\n".join(wrong)


def test_missing_page_works(open_page, base):
    page = open_page("")
    faults = watch(page, base)
    page.goto(base + "no/such/page/")
    assert page.locator("article section").count() == 2
    unexpected = [
        f for f in faults if "no/such/page" not in f and "status of 404" not in f
    ]
    assert not unexpected, unexpected
    page.locator("article section[lang=en] a").first.click()
    page.wait_for_url(base + "en/")


@each_language
def test_first_load_is_light(language, browser, base, site):
    """What the browser really asks for, scripts' requests included."""
    with browser.new_context() as context:
        page = context.new_page()
        asked = set()
        page.on("request", lambda r: asked.add(path_of(r.url, base)))
        page.goto(base + address(KINDS["implementation"], language))
        page.wait_for_load_state("networkidle")
    files = [
        site / (f"{path}index.html" if path.endswith("/") else path) for path in asked
    ]
    sizes = {
        file.name: len(body if file.suffix == ".woff2" else gzip.compress(body))
        for file in files
        if (body := file.read_bytes())
    }
    assert {"guide-math.woff2", "guide.css", "index.html"} <= set(sizes)
    assert any(name.startswith("search.") for name in sizes), "the search's worker"
    assert sum(sizes.values()) <= LOAD_LIMIT, sizes


# --- Without JavaScript, on a phone, by keyboard, by ear ------------------------------


@each_language
@each_kind
def test_everything_can_be_read_without_javascript(kind, language, open_page):
    where = address(KINDS[kind], language)
    texts = []
    for javascript in (True, False):
        page = open_page(where, java_script_enabled=javascript)
        page.evaluate(
            "document.querySelectorAll('details').forEach(d => d.open = true)"
        )
        texts.append(re.sub(r"\s+", " ", page.locator("article").inner_text()))
    assert texts[0] == texts[1]
    assert len(texts[1]) > 100
    for selector in ("article math", "article pre", "article img:not(.only-dark)"):
        for box in page.locator(selector).all():
            assert box.bounding_box()["height"] > 0, selector


def test_folded_parts_open_without_javascript(open_page):
    page = open_page(CODE, java_script_enabled=False)
    for details in page.locator("article details:visible").all():
        inside = details.locator(":scope > :not(summary)").first
        assert not inside.is_visible()
        details.locator("summary").click()
        assert inside.is_visible()


@each_language
@each_kind
def test_phone_does_not_scroll_sideways(kind, language, open_page):
    page = open_page(address(KINDS[kind], language), width=360)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 360


def test_wide_code_scrolls_in_its_own_box(open_page):
    page = open_page(CODE, width=360)
    widths = page.locator("article pre").evaluate_all(
        "all => all.map(e => [e.scrollWidth, e.clientWidth])"
    )
    assert any(inside > box for inside, box in widths)
    assert all(box <= 360 for _, box in widths)


def focused(page) -> str:
    """Return what has the focus: its classes and its target."""
    return page.evaluate(
        "(e => `${e.className} ${e.name ?? ''} ${e.htmlFor ?? ''}`)(document.activeElement)"
    )


@each_language
def test_keyboard_reaches_what_matters(language, open_page):
    page = open_page(address(KINDS["implementation"], language))
    page.keyboard.press("Tab")
    assert "md-skip" in focused(page)
    box = page.locator("a.md-skip:focus").bounding_box()
    assert box["y"] >= 0
    page.wait_for_function("getComputedStyle(document.activeElement).opacity === '1'")
    page.keyboard.press("Enter")
    assert page.url.endswith("#__content")
    page.reload()
    seen = []
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.append(focused(page))
    order = [
        next(n for n, text in enumerate(seen) if part in text)
        for part in ("md-skip", "md-logo", "g-lang", "md-search__input")
    ]
    assert order == sorted(order), seen


def test_menu_and_search_open_by_keyboard_on_a_phone(open_page):
    page = open_page(CODE, width=360)
    for toggle, opened in (("__drawer", ".g-nav"), ("__search", ".md-search__input")):
        page.locator(f"label[for={toggle}].md-header__button").focus()
        page.keyboard.press("Enter")
        page.wait_for_function(f"document.getElementById('{toggle}').checked")
        page.locator(opened).first.wait_for(state="visible")
        page.evaluate(f"document.getElementById('{toggle}').click()")


@each_language
@each_kind
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(scheme, kind, language, open_page):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(address(KINDS[kind], language), scheme=scheme)
    page.wait_for_load_state("load")
    assert scheme_of(page) == ("slate" if scheme == "dark" else "default")
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    result = Axe().run(page, options={"runOnly": {"type": "tag", "values": WCAG}})
    found = [
        f"{v['id']}: {v['help']}\n    "
        + "\n    ".join(
            f"{n['html'][:160]} {n.get('failureSummary', '')}" for n in v["nodes"][:4]
        )
        for v in result.response["violations"]
    ]
    assert not found, "\n".join(found)


# --- Formulas -------------------------------------------------------------------------


def test_brackets_stretch(open_page):
    page = open_page(address("implementations/foundations/self_attention", "zh"))
    page.wait_for_function("document.fonts.status === 'loaded'")
    assert page.evaluate("document.fonts.check('20px \"Guide Math\"')")
    heights = page.locator("article .formula mo").evaluate_all(
        "all => all.filter(e => /^[([{]$/.test(e.textContent))"
        ".map(e => [e.getAttribute('stretchy') === 'false', e.getBoundingClientRect().height])"
    )
    letters = page.locator("article .formula mi").evaluate_all(
        "all => all.map(e => e.getBoundingClientRect().height)"
    )
    tall = max(height for still, height in heights if not still)
    assert tall > 1.5 * max(letters), (tall, max(letters))


def test_wide_formula_scrolls_in_its_own_box(open_page):
    page = open_page(
        address("implementations/foundations/self_attention", "zh"), width=360
    )
    boxes = page.locator(".formula").evaluate_all(
        "all => all.map(e => [e.scrollWidth, e.clientWidth])"
    )
    assert any(inside > box for inside, box in boxes), boxes
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 360
