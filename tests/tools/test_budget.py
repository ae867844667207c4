"""Weights are weighed as a browser loads them, and too much is said."""

import gzip

import pytest

from docs._tools import budget
from docs._tools.guide import Guide
from docs._tools.problems import Stop


@pytest.fixture
def weighed(tmp_path):
    """Give a site of one page with a style, a font and a lazy picture."""
    site = tmp_path / "site"
    (site / "page").mkdir(parents=True)
    (site / "style.css").write_text("@font-face{src:url(font.woff2)}")
    (site / "font.woff2").write_bytes(bytes(range(256)))
    (site / "picture.svg").write_text("<svg/>" * 1000)
    (site / "page" / "index.html").write_text(
        '<link href="../style.css" rel=stylesheet>'
        '<img src="../picture.svg" loading="lazy"><a href="../other.css">x</a>'
    )
    (site / "other.css").write_text("not loaded")
    return site


def test_a_page_weighs_what_it_loads(weighed):
    (page,) = budget.weights(weighed)
    files = [weighed / n for n in ("page/index.html", "style.css")]
    assert page.html == len(files[0].read_bytes())
    assert page.first_load == sum(
        len(gzip.compress(f.read_bytes(), 6, mtime=0)) for f in files
    ) + len((weighed / "font.woff2").read_bytes())


def test_what_is_over_budget_is_said(weighed, monkeypatch, capsys):
    (weighed / "index.html").write_text("x" * 41_000)
    monkeypatch.setattr(budget, "_time_rows", lambda guide: iter(()))
    assert budget.report(Guide(weighed.parent)) == 1
    assert "41 KB" in capsys.readouterr().out
    (weighed / "index.html").write_text("x")
    assert budget.report(Guide(weighed.parent)) == 0


def test_no_site_is_one_sentence(tmp_path):
    with pytest.raises(Stop, match="run `make site` first"):
        budget.report(Guide(tmp_path))
