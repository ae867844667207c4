"""From pages to a site of two languages, and nothing published that is not whole."""

import json
import zipfile

import nbformat
import pytest
from bs4 import BeautifulSoup

from docs._tools import site
from docs._tools.execute import Runner
from docs._tools.guide import Guide
from docs._tools.notebooks import _installing, to_download
from docs._tools.pages import Page, load
from docs._tools.problems import Stop
from tests.tools.conftest import KEY

DEMO = 'print("mean", mean(torch.tensor([[1.0], [3.0]])).item())'
CELL = '```python\n--8<-- "snippets/room/mean.py:demo"'


def soup(fixture, language="zh", key=KEY):
    folder = fixture.guide.site if language == "zh" else fixture.guide.site / language
    return BeautifulSoup(
        (folder / key / "index.html").read_text("utf-8"), "html.parser"
    )


def test_outputs_of_every_kind_reach_both_languages(site_fixture):
    fixture = site_fixture
    fixture.edit(
        fixture.snippet,
        "    " + DEMO,
        """\
    import warnings
    from IPython.display import HTML
    print("printed"); warnings.warn("be warned")
    display(HTML("<table><tr><td>a table</td></tr></table>"))
    print("after the table")
    # --8<-- [end:demo]
    # --8<-- [start:picture]
    import matplotlib.pyplot as plt
    plt.plot([1, 2])
    plt.show()
    # --8<-- [end:picture]
    # --8<-- [start:wrong]
    raise ValueError("a short error")
    # --8<-- [end:wrong]
    # --8<-- [start:last]
    torch.ones(2)""",
    )
    fixture.edit(
        fixture.snippet,
        "    torch.ones(2)\n    # --8<-- [end:demo]",
        "    torch.ones(2)\n    # --8<-- [end:last]",
    )
    for language, alt in (("zh", "一条线"), ("en", "a line")):
        fixture.edit(
            fixture.path(language),
            CELL + "\n```",
            CELL
            + f'''
```

```python alt="{alt}"
--8<-- "snippets/room/mean.py:picture"
```

```python tags=["raises-exception"] raises="ValueError"
--8<-- "snippets/room/mean.py:wrong"
```

```python tags=["folded"]
--8<-- "snippets/room/mean.py:last"
```''',
        )
    from docs._tools.parity import stamp_keys

    stamp_keys(fixture.guide, [KEY])
    site.build(fixture.guide)
    for language, alt in (("zh", "一条线"), ("en", "a line")):
        page = soup(fixture, language)
        outputs = [x.get_text().strip() for x in page.select(".output")]
        text = "\n".join(outputs)
        for expected in (
            "printed",
            "be warned",
            "a table",
            "after the table",
            "ValueError: a short error",
            "tensor([1., 1.])",
        ):
            assert expected in text, (
                f"{expected!r} is not on the {language} page: {outputs}"
            )
        assert "Traceback" not in text
        assert page.select(".output.error")
        images = page.select("p.figure img")
        assert [image["alt"] for image in images] == [alt, alt]
        folder = fixture.guide.site if language == "zh" else fixture.guide.site / "en"
        for image in images:
            assert image["loading"] == "lazy"
            assert int(image["width"]) > 100
            assert (folder / KEY / image["src"]).exists()
        assert page.select("details")
        assert page.select("math")
        assert "[@" not in page.get_text()
        assert "Vaswani et al. 2017, §3" in page.get_text()
        assert page.find(id="sources")
        assert page.find(id="formula")


def test_figures_come_in_a_light_and_a_dark_version(site_fixture):
    fixture = site_fixture
    fixture.edit(
        fixture.snippet,
        DEMO,
        "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()",
    )
    fixture.edit_both(CELL, CELL.replace("python", 'python alt="a line"'))
    site.build(fixture.guide)
    light, dark = (
        (fixture.guide.site / KEY / f"figure-1-{scheme}.svg").read_text("utf-8")
        for scheme in ("light", "dark")
    )
    assert "#000000" in light
    assert "#000000" not in dark
    assert light != dark


def test_the_download_runs_without_the_repository(site_fixture):
    fixture = site_fixture
    site.build(fixture.guide)
    for language in ("zh", "en"):
        folder = fixture.guide.site if language == "zh" else fixture.guide.site / "en"
        book = nbformat.read(folder / KEY / "mean.ipynb", 4)
        nbformat.validate(book)
        assert all(not cell.get("outputs") for cell in book.cells)
        assert "%pip install" in book.cells[1].source
        assert "torch==" in book.cells[1].source
        text = "\n".join(cell.source for cell in book.cells)
        assert {"zh": "说明。", "en": "Words."}[language] in text
        for only_for_the_site in ("--8<--", "[@", "[!NOTE]", "{ #"):
            assert only_for_the_site not in text
        assert "test_is_mean()" in text
        with zipfile.ZipFile(folder / f"attention-guide-{language}.zip") as archive:
            assert sorted(name.rpartition("/")[2] for name in archive.namelist()) == [
                "mean.ipynb",
                "mean_1.ipynb",
                "mean_exercise.ipynb",
            ]


def test_links_of_a_download_lead_to_the_web(site_fixture):
    fixture = site_fixture
    fixture.edit_both("](#formula)", "](../index.md)")
    page = load(fixture.guide)[KEY]["en"]
    book = to_download(
        page, Runner(fixture.guide).library, fixture.guide, "https://x.org/"
    )
    assert "](https://x.org/en/implementations/)" in "\n".join(
        c.source for c in book.cells
    )


@pytest.mark.parametrize("fault", ["source", "cell", "template"])
def test_a_fault_leaves_the_last_good_site(site_fixture, fault, monkeypatch):
    fixture = site_fixture
    site.build(fixture.guide)
    before = {p: p.read_bytes() for p in fixture.guide.site.rglob("*") if p.is_file()}
    if fault == "source":
        fixture.edit_both("tags: [basics]", "tags: [basic]")
    elif fault == "cell":
        fixture.edit(fixture.snippet, DEMO, "1 / 0")
    else:
        fixture.edit(
            fixture.guide.root / "mkdocs.en.yml",
            "docs_dir: docs/en",
            "docs_dir: docs/xx",
        )
    with pytest.raises(Stop):
        site.build(fixture.guide)
    after = {p: p.read_bytes() for p in fixture.guide.site.rglob("*") if p.is_file()}
    assert after == before


def test_a_warning_of_mkdocs_stops_the_build(site_fixture):
    fixture = site_fixture
    fixture.edit(fixture.path("en", "index"), "words", "[x][y]\n\n[y]: nowhere.md")
    with pytest.raises(Stop, match=r"nowhere\.md"):
        site.publish(fixture.guide, fixture.guide.site)
    assert not fixture.guide.site.exists()


def test_a_page_that_has_not_run_says_so(site_fixture):
    fixture = site_fixture
    site.publish(fixture.guide, fixture.guide.site, strict=False)
    assert "还没有" in soup(fixture).get_text()
    assert "has not run here yet" in soup(fixture, "en").get_text()
    assert not soup(fixture).select(".output")


def test_the_page_names_where_it_ran(site_fixture, tmp_path):
    fixture = site_fixture
    record = tmp_path / "gpu.json"
    record.write_text(
        json.dumps(
            {
                KEY: {
                    "device": "NVIDIA X1",
                    "torch": "2.13.0",
                    "python": "3.11",
                    "commit": "abc1234",
                    "seconds": 1,
                }
            }
        )
    )
    site.build(fixture.guide, gpu_record=str(record))
    text = soup(fixture, "en").get_text()
    assert "CPU" in text
    assert "NVIDIA X1" in text


def test_a_record_that_cannot_be_read_is_one_sentence(site_fixture, tmp_path):
    with pytest.raises(Stop, match="Give a file that `run --record` wrote"):
        site.publish(
            site_fixture.guide,
            site_fixture.guide.site,
            gpu_record=str(tmp_path / "no.json"),
        )


def test_a_stale_translation_shows_a_banner(site_fixture):
    fixture = site_fixture
    fixture.edit(fixture.path("zh"), "说明。", "新的说明。")
    fixture.edit(fixture.path("en"), "{of: zh, at:", "{of: zh, stale: true, at:")
    site.build(fixture.guide)
    assert soup(fixture, "en").select(".g-stale")
    assert not soup(fixture).select(".g-stale")


def test_data_packages_come_without_their_dependencies(tmp_path):
    """And those that only a source archive holds are downloaded, not installed."""
    (tmp_path / "pyproject.toml").write_text(
        '[dependency-groups]\nsdist = ["archived==1.0"]\n', "utf-8"
    )
    head = "---\nid: a\npackages: [data==2.0, archived==1.0]\n---\n"
    page = Page("en", tmp_path / "a.md", "applications/a", head)
    needs = ["torch==1", "data==2.0", "archived==1.0"]
    assert _installing(needs, page, Guide(tmp_path)) == [
        "# %pip install torch==1",
        "# %pip install --no-deps data==2.0",
        "# %pip download --no-deps --no-binary :all: archived==1.0",
    ]
    plain = Page("en", tmp_path / "b.md", "practice/b", "---\nid: b\n---\n")
    assert _installing(["torch==1"], plain, Guide(tmp_path)) == [
        "# %pip install torch==1"
    ]
