"""The question bank in a browser: filters, cards, progress; and on paper."""

from __future__ import annotations

import json
import re

import pytest

from docs._tools import bank, pdf
from docs._tools.guide import LANGUAGES, Guide
from docs._tools.pages import load

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
QUESTION = "questions/basics/what_is_attention/"


@pytest.fixture(scope="module")
def themes():
    """The themes of the Chinese pages; the English ones have the same ids."""
    pages = load(Guide())
    return bank.themes({key: pair["zh"] for key, pair in pages.items() if "zh" in pair})


def stored(page) -> dict:
    return json.loads(page.evaluate("localStorage.getItem('attention-guide') || '{}'"))


def test_the_table_holds_every_question(built, themes):
    ids = [question.meta["id"] for theme in themes for question in theme.questions]
    for page in built:
        if page.key == "questions/all_questions":
            assert [row["data-id"] for row in page.soup.select("tbody tr")] == ids


def test_every_question_has_a_card_with_its_answer(built, themes):
    ids = [question.meta["id"] for theme in themes for question in theme.questions]
    for page in built:
        if page.key == "questions/cards":
            cards = page.soup.select("details.g-card")
            assert [card["data-id"] for card in cards] == ids
            assert all(len(card.div.p.get_text()) > 10 for card in cards)


def test_a_question_says_its_level_in_the_language_of_its_page(built, themes):
    level = {q.key: q.meta["level"] for theme in themes for q in theme.questions}
    for page in built:
        if page.key in level:
            said = page.soup.select_one(".g-ran b").get_text()
            assert said == bank.WORDS[page.language]["levels"][level[page.key]]


def test_every_wrong_answer_is_listed(built, themes):
    """Each theme shows its claims, and the list of all leads to each."""
    claims = {
        f"{theme.room}/{theme.gallery.meta['id']}/#{identity}"
        for theme in themes
        if theme.gallery
        for _, level, _, identity in theme.gallery.headings
        if level == 2
    }
    for page in built:
        if page.key == "questions/wrong_answers":
            assert claims
            links = {a["href"] for a in page.soup.select("article a[href*='#']")}
            assert claims <= {link.removeprefix("../") for link in links}


@pytest.mark.parametrize("language", LANGUAGES)
def test_filters_of_the_table(language, open_page):
    page = open_page(f"{'' if language == 'zh' else 'en/'}questions/all_questions/")
    rows = page.locator("#all-questions tbody tr")
    total = rows.count()
    theme, level, tag, _read = page.locator(".g-filter select").all()
    level.select_option("core")
    shown = page.locator("#all-questions tbody tr:visible")
    assert 0 < shown.count() < total
    assert {row.get_attribute("data-level") for row in shown.all()} == {"core"}
    theme.select_option("basics")
    assert {row.get_attribute("data-theme") for row in shown.all()} <= {"basics"}
    assert str(shown.count()) in page.locator("[role=status]").inner_text()
    theme.select_option("")
    level.select_option("")
    tag.select_option("vision")
    assert all(
        "vision" in row.get_attribute("data-tags").split() for row in shown.all()
    )
    tag.select_option("")
    assert shown.count() == total


def test_a_question_that_was_opened_counts_as_read(open_page, base):
    page = open_page(QUESTION)
    page.goto(base + "en/questions/all_questions/")
    page.locator(".g-filter select").nth(3).select_option("yes")
    shown = page.locator("#all-questions tbody tr:visible")
    assert [row.get_attribute("data-id") for row in shown.all()] == [
        "what_is_attention"
    ]


def test_the_table_is_whole_without_scripts(open_page):
    page = open_page("questions/all_questions/", java_script_enabled=False)
    assert page.locator("#all-questions tbody tr:visible").count() > 0
    assert page.locator(".g-filter").count() == 0


def test_cards_open_without_scripts(open_page):
    page = open_page("questions/cards/", java_script_enabled=False)
    card = page.locator("details.g-card").first
    assert not card.locator("div").is_visible()
    card.locator("summary").click()
    assert card.locator("div").is_visible()


def test_a_card_remembers_what_was_known(open_page):
    page = open_page("questions/cards/")
    first, second = (page.locator("details.g-card").nth(n) for n in (0, 1))
    for card, says in ((first, "会了"), (second, "没会")):
        card.locator("summary").click()
        card.get_by_role("button", name=says, exact=True).click()
        assert not card.locator("div").is_visible()
    ids = [card.get_attribute("data-id") for card in (first, second)]
    page.reload()
    assert [stored(page)[one]["knew"] for one in ids] == [True, False]
    assert page.locator("[role=status]").inner_text().startswith("会了 1 /")
    page.locator(".g-filter select").nth(1).select_option("left")
    assert not first.is_visible()
    assert second.is_visible()
    page.locator(".g-filter select").nth(1).select_option("missed")
    assert page.locator("details.g-card:visible").count() == 1


def test_progress_goes_out_as_a_file_and_comes_back(open_page, tmp_path):
    page = open_page("en/questions/cards/")
    card = page.locator("details.g-card").first
    card.locator("summary").click()
    card.get_by_role("button", name="Knew it").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export progress").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert json.loads(path.read_text("utf-8")) == stored(page)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Clear progress").click()
    assert stored(page) == {}
    page.locator("input[type=file]").set_input_files(path)
    page.wait_for_function("localStorage.getItem('attention-guide') !== '{}'")
    assert stored(page) == json.loads(path.read_text("utf-8"))


def test_a_file_that_is_no_progress_changes_nothing(open_page, tmp_path):
    page = open_page("en/questions/cards/")
    for text in ("not JSON", "[1]", '{"a": 1}'):
        path = tmp_path / "other.json"
        path.write_text(text, "utf-8")
        page.locator("input[type=file]").set_input_files(path)
        page.get_by_text("no exported progress").wait_for()
        assert stored(page) == {}
        page.reload()


def test_the_bank_is_printed_as_one_pdf_a_language(
    site, browser, themes, tmp_path, monkeypatch
):
    """Three themes stand for all: printing the whole bank takes over a minute."""
    from pypdf import PdfReader

    rooms = {theme.room for theme in themes[:3]}
    everything = bank.themes
    monkeypatch.setattr(
        bank, "themes", lambda pages: [t for t in everything(pages) if t.room in rooms]
    )

    written = pdf.print_bank(browser, Guide(), site, tmp_path)
    for language, path in zip(LANGUAGES, written, strict=True):
        reader = PdfReader(path)
        marks = [mark for mark in reader.outline if not isinstance(mark, list)]
        assert len(marks) == len(rooms)
        assert len(reader.pages) > len(rooms)
        text = "".join(page.extract_text() for page in reader.pages)
        han = len(re.findall(r"[\u2e80-\u9fff]", text))
        assert (han > len(text) / 4) == (language == "zh")
        assert path.stat().st_size < 20_000_000
