"""What `make site` built is whole: links, ids, languages, downloads, weights."""

from __future__ import annotations

import gzip
import re
import xml.etree.ElementTree as ElementTree
import zipfile
from collections import Counter
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup

from docs._tools import exercises, practice
from docs._tools.guide import LANGUAGES, Guide
from docs._tools.includes import Library
from docs._tools.pages import load
from tests.site.conftest import KINDS, Built, address

# One worker reads all pages once.
pytestmark = pytest.mark.xdist_group("built_site")

PAGE_LIMIT = 40_000  # bytes of HTML of a page with code
APPLICATION_LIMIT = 50_000  # ADR 16
LOAD_LIMIT = 200_000  # bytes of all files of a first load, gzip
FONT_LIMIT = 80_000
HERE = "http://here.invalid"
# What a browser fetches by itself, not what a reader follows.
FETCHED = (
    ("script", "src"),
    ("img", "src"),
    ("source", "src"),
    ("iframe", "src"),
    ("object", "data"),
    ("embed", "src"),
    ("video", "src"),
    ("audio", "src"),
    ("use", "href"),
)
FETCHING_LINKS = {"stylesheet", "preload", "prefetch", "preconnect", "dns-prefetch",
                  "modulepreload", "icon", "manifest"}  # fmt: skip


def soup_of(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text("utf-8"), "html.parser")


def here(page: Built, prefix: str) -> str:
    """The address of a page on a host that does not exist."""
    return f"{HERE}{prefix}{page.where}"


def fetched(soup: BeautifulSoup) -> list[str]:
    found = [
        tag[name]
        for tag_name, name in FETCHED
        for tag in soup.select(f"{tag_name}[{name}]")
    ]
    found += [
        tag["href"]
        for tag in soup.select("link[href]")
        if FETCHING_LINKS & set(tag.get("rel", []))
    ]
    return found


def in_css(text: str) -> list[str]:
    found = re.findall(r"url\(\s*['\"]?([^'\")]+)", text)
    found += re.findall(r"@import\s+['\"]([^'\"]+)", text)
    return [target for target in found if not target.startswith(("data:", "#"))]


@pytest.fixture(scope="session")
def file_at(site, prefix):
    """Where the file behind an address of the site is, or None."""

    @cache
    def found(url: str) -> Path | None:
        path = unquote(urlsplit(url).path)
        if not path.startswith(prefix):
            return None
        file = site / path[len(prefix) :]
        file = file / "index.html" if path.endswith("/") else file
        return file if file.is_file() else None

    return found


@pytest.fixture(scope="session")
def ids_of():
    @cache
    def found(path: Path) -> frozenset[str]:
        return frozenset(re.findall(r'<[^>]*\sid="([^"]+)"', path.read_text("utf-8")))

    return found


def test_every_link_image_and_anchor_leads_somewhere(built, prefix, file_at, ids_of):
    wrong = []
    for page in built:
        targets = [(tag, tag["href"]) for tag in page.soup.select("a[href]")]
        targets += [(tag, tag["src"]) for tag in page.soup.select("[src]")]
        targets += [
            (tag, tag["href"])
            for tag in page.soup.select("link[href]")
            if not {"canonical", "alternate"} & set(tag["rel"])
        ]
        for tag, target in targets:
            url = urljoin(here(page, prefix), target)
            if not url.startswith(HERE):
                continue
            path, anchor = file_at(url), unquote(urlsplit(url).fragment)
            if path is None:
                wrong.append(
                    f"{page.where}: {tag.name} leads to {target}, which is not there"
                )
            elif anchor and path.suffix == ".html" and anchor not in ids_of(path):
                wrong.append(
                    f"{page.where}: {target} names an anchor that is not there"
                )
    assert not wrong, "\n".join(wrong)


def test_ids_are_unique_on_each_page(built):
    for page in built:
        twice = [
            i
            for i, n in Counter(t["id"] for t in page.soup.select("[id]")).items()
            if n > 1
        ]
        assert not twice, f"{page.where}: {twice}"


def test_nothing_is_fetched_from_another_host(built, site, prefix):
    wrong = []
    for page in built:
        found = fetched(page.soup)
        found += [u for t in page.soup.select("style, [style]")
                  for u in in_css(t.get("style", "") + t.get_text())]  # fmt: skip
        wrong += [
            f"{page.where}: {target}"
            for target in found
            if not target.startswith("data:")
            and not urljoin(here(page, prefix), target).startswith(HERE)
        ]
    for path in site.rglob("*.css"):
        wrong += [
            f"{path.name}: {target}"
            for target in in_css(path.read_text("utf-8"))
            if urlsplit(target).netloc
            or not (path.parent / target.split("#")[0]).exists()
        ]
    for path in site.rglob("*.svg"):
        text = path.read_text("utf-8")
        wrong += [
            f"{path.name}: {target}"
            for target in re.findall(r'(?:href|src)="([^"]+)"', text) + in_css(text)
            if urlsplit(target).netloc
        ]
    assert not wrong, "\n".join(wrong)


def test_languages_point_to_each_other(built, prefix):
    heads = {}
    for page in built:
        canonical = page.soup.select("link[rel=canonical]")
        assert len(canonical) == 1, page.where
        url = canonical[0]["href"]
        assert urlsplit(url).path == prefix + page.where
        alternates = {
            tag["hreflang"]: tag["href"]
            for tag in page.soup.select("link[hreflang]")
            if "alternate" in tag["rel"]
        }
        heads[url] = (page, alternates)
    for url, (page, alternates) in heads.items():
        assert set(alternates) == {"zh", "en", "x-default"}, page.where
        assert alternates["x-default"] == alternates["zh"]
        assert alternates[page.language] == url
        for language in LANGUAGES:
            other, theirs = heads[alternates[language]]
            assert (other.language, other.key) == (language, page.key)
            assert theirs == alternates, f"{page.where} and {other.where} disagree"


def test_language_switch_leads_to_the_same_page(built, prefix):
    for page in built:
        (switch,) = page.soup.select("a.g-lang")
        other = "en" if page.language == "zh" else "zh"
        assert switch["hreflang"] == other
        target = urljoin(here(page, prefix), switch["href"])
        assert target == f"{HERE}{prefix}{address(page.key, other)}"


def test_each_page_has_a_title_a_description_and_a_language(built):
    seen: dict[str, str] = {}
    for page in built:
        assert page.soup.html["lang"] == page.language
        assert len(page.soup.select("h1")) == 1, page.where
        assert page.soup.title.get_text().strip(), page.where
        (tag,) = page.soup.select("meta[name=description]")
        text = tag["content"].strip()
        assert len(text) >= 8, f"{page.where}: {text!r}"
        assert text not in seen, f"{page.where} and {seen[text]} have one description"
        seen[text] = page.where


def test_headings_have_the_same_ids_in_both_languages(built):
    of = {
        (page.key, page.language): [
            (tag.name, tag.get("id"))
            for tag in page.soup.select("article :is(h1, h2, h3, h4)")
        ]
        for page in built
    }
    for (key, language), headings in of.items():
        if key == "tags":
            continue  # its headings are the names of the tags
        assert all(identity for _, identity in headings), (
            f"{language} {key}: {headings}"
        )
        assert headings == of[key, "en"], key


def test_pictures_can_be_heard_and_do_not_jump(built):
    for page in built:
        for image in page.soup.select("article img"):
            where = f"{page.where}: {image['src']}"
            assert len(image.get("alt", "").strip()) > 10, where
            assert int(image["width"]) > 0, where
            assert int(image["height"]) > 0, where
            if not page.soup.select_one(".g-home"):
                assert image["loading"] == "lazy", where
        for figure in page.soup.select("p.figure"):
            classes = [image["class"] for image in figure.select("img")]
            assert classes == [["only-light"], ["only-dark"]], page.where


def test_no_source_syntax_is_left(built):
    """Formulas, includes, callouts and citations were all turned into what they mean."""
    for page in built:
        silent = {"pre", "code", "annotation", "math"}
        text = "".join(
            text
            for text in page.soup.select_one("article").find_all(string=True)
            if not silent & {tag.name for tag in text.parents}
        )
        for left in (
            "$",
            r"\(",
            r"\[",
            r"\frac",
            "--8<--",
            "[!",
            "[@",
            "{ #",
            "![",
            "](",
            "**",
        ):
            assert left not in text, f"{page.where}: {left!r} is left in the text"
        assert "arithmatex" not in page.html, page.where
        assert "--8<--" not in page.html, page.where


def test_formulas_are_there(built):
    with_formulas = [p for p in built if p.key == KINDS["implementation"]]
    for page in with_formulas:
        assert "<math" in page.html
        for box in page.soup.select(".formula"):
            assert box.get("tabindex") == "0", (
                "a wide formula scrolls, so it takes the focus"
            )


def test_wide_code_and_tables_take_the_focus(built):
    for page in built:
        for pre in page.soup.select("article pre"):
            if max(map(len, pre.get_text().split("\n"))) > 40:
                assert pre.get("tabindex") == "0", (
                    f"{page.where}: {pre.get_text()[:60]}"
                )
        for table in page.soup.select("article table"):
            assert table.find_parent(class_="table")["tabindex"] == "0", page.where


def test_each_page_with_code_offers_its_notebook(built, prefix, file_at):
    expected = {
        (page.language, page.key)
        for pair in load(Guide()).values()
        for page in pair.values()
        if page.cells
    }
    found = set()
    for page in built:
        for link in page.soup.select(".g-bar a[download]"):
            path = file_at(urljoin(here(page, prefix), link["href"]))
            notebook = nbformat.read(path, as_version=4)
            nbformat.validate(notebook)
            cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
            assert len(cells) > 1, page.where
            assert not any(cell.outputs or cell.execution_count for cell in cells), (
                page.where
            )
            assert "--8<--" not in path.read_text("utf-8"), page.where
            found.add((page.language, page.key))
    assert found == expected


def test_each_page_says_where_it_ran(built):
    for page in built:
        if bar := page.soup.select_one(".g-bar"):
            text = bar.get_text()
            assert re.search(r"PyTorch \d+\.\d+\.\d+ · Python \d+\.\d+\.\d+", text), (
                page.where
            )
            assert "GPU" in text, page.where
            assert bar.select_one("a[rel=edit]"), page.where


def test_edit_links_name_the_source(built):
    for page in built:
        if page.key == "index":
            continue
        (link,) = page.soup.select("a[rel=edit]")
        source = Guide().root / re.search(r"/(docs/.*)$", link["href"])[1]
        assert source == Guide().docs / page.language / f"{page.key}.md", page.where


@pytest.mark.parametrize("language", LANGUAGES)
def test_zip_holds_every_notebook(language, site):
    root = site / ("" if language == "zh" else language)
    name = f"attention-guide-{language}"
    keys = [
        key
        for key, pair in load(Guide()).items()
        if language in pair and pair[language].cells
    ]
    where = {f"{key}.ipynb": root / key / f"{key.split('/')[-1]}.ipynb" for key in keys}
    guide = Guide()
    for exercise in exercises.all_of(load(guide), Library.read(guide), guide, language):
        where |= {path: root / path for path in practice.addresses(exercise)}
    assert len(where) > len(keys) + 30
    with zipfile.ZipFile(root / f"{name}.zip") as archive:
        assert sorted(archive.namelist()) == sorted(f"{name}/{path}" for path in where)
        for path, alone in where.items():
            assert archive.read(f"{name}/{path}") == alone.read_bytes()


def test_home_leads_into_both_ways(built):
    for page in built:
        if page.key == "index":
            ways = [
                [link["href"] for link in section.select("ol a")]
                for section in page.soup.select(".g-two section")
            ]
            assert len(ways) == 2
            assert all(len(way) >= 5 for way in ways), ways
            assert page.soup.select_one(
                f'a[href$="attention-guide-{page.language}.zip"]'
            )


def test_the_table_of_applications_is_filled(built):
    """Each application has a row, each row the numbers that its page printed."""
    applied = {
        page.key.split("/")[1] for page in built if page.key.startswith("applications/")
    } - {"index"}
    for page in built:
        if page.key == "applications/index":
            rows = page.soup.select("td:has(a)")
            linked = {a["href"].strip("/") for td in rows for a in td.select("a")}
            assert linked == applied, page.where
            cells = [td.text for td in page.soup.select("td")]
            assert not any("{{" in cell or "…" in cell for cell in cells), page.where
            assert sum("±" in cell for cell in cells) > len(applied), page.where


def test_pages_are_light(built):
    heavy = {
        page.where: size
        for page in built
        if page.soup.select_one(".g-bar")
        and (size := len(page.html.encode()))
        > (APPLICATION_LIMIT if page.key.startswith("applications/") else PAGE_LIMIT)
    }
    assert not heavy, (
        f"over {PAGE_LIMIT} bytes of HTML, {APPLICATION_LIMIT} for an application: {heavy}"
    )


def test_first_load_is_light(built, site, prefix, file_at):
    """All that a page asks for at once, and the search when it is used, pictures included."""
    for page in built:
        files = {page.path}
        targets = fetched(page.soup)
        for target in targets:
            files.add(file_at(urljoin(here(page, prefix), target)))
        for style in [file for file in files if file.suffix == ".css"]:
            files |= {
                (style.parent / u.split("#")[0]).resolve()
                for u in in_css(style.read_text())
            }
        sizes = {
            file: len(
                file.read_bytes()
                if file.suffix == ".woff2"
                else gzip.compress(file.read_bytes())
            )
            for file in files
            if not file.name.endswith("-dark.svg")
        }
        assert sum(sizes.values()) <= LOAD_LIMIT, f"{page.where}: {sizes}"


def test_fonts_are_light_and_licensed(site):
    fonts = list((site / "assets" / "fonts").glob("*.woff2"))
    assert fonts
    assert sum(font.stat().st_size for font in fonts) <= FONT_LIMIT
    for font in fonts:
        assert (font.parent / f"LICENSE-{font.stem}.txt").exists()


@pytest.mark.parametrize("language", LANGUAGES)
def test_sitemap_names_every_page_in_both_languages(language, built, site):
    folder = site / ("" if language == "zh" else language)
    urls = list(ElementTree.parse(folder / "sitemap.xml").getroot())
    names = {"s": "http://www.sitemaps.org/schemas/sitemap/0.9"}
    canonical = {
        page.soup.select_one("link[rel=canonical]")["href"]
        for page in built
        if page.language == language
    }
    assert {url.findtext("s:loc", namespaces=names) for url in urls} == canonical
    for url in urls:
        links = url.findall("{http://www.w3.org/1999/xhtml}link")
        assert {link.get("hreflang") for link in links} == {"zh", "en", "x-default"}
        assert len({link.get("href") for link in links}) == 2


def test_robots_names_both_sitemaps(site):
    text = (site / "robots.txt").read_text("utf-8")
    assert len(re.findall(r"^Sitemap: \S+/(?:en/)?sitemap\.xml$", text, re.M)) == 2


def test_missing_page_speaks_both_languages(site, prefix, file_at):
    soup = soup_of(site / "404.html")
    assert {tag["lang"] for tag in soup.select("article section")} == set(LANGUAGES)
    links = [tag["href"] for tag in soup.select("article section a")]
    assert len(links) == 6
    for target in [*links, *fetched(soup)]:
        # It is shown below any address, so its own links must not depend on one.
        url = urljoin(f"{HERE}{prefix}some/where/else/", target)
        assert file_at(url), target


def test_nothing_unused_is_published(site):
    left = [p.name for p in site.rglob("*") if p.suffix == ".map" or "lunr" in p.parts]
    assert not left


def test_dark_palette_is_one():
    """guide.css states the dark colors twice, once for readers without JavaScript."""
    css = (Guide().docs / "_theme" / "assets" / "guide.css").read_text("utf-8")
    chosen = re.search(r'\[data-md-color-scheme="slate"\] \{(.*?)\}', css, re.S)[1]
    without = re.search(
        r'\.no-js \[data-md-color-scheme="default"\] \{(.*?)\}', css, re.S
    )[1]
    assert chosen.split() == without.split()
