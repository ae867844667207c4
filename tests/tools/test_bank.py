"""The lists of the question bank say what its pages say, and lead to them."""

from bs4 import BeautifulSoup

from docs._tools import bank
from docs._tools.check import check_gallery
from tests.tools.bank_pages import GALLERY, bank_pages, page


def soup(html: str) -> BeautifulSoup:
    return BeautifulSoup(html, "html.parser")


def test_themes_follow_the_order_and_leave_out_empty_ones():
    (theme,) = bank.themes(bank_pages())
    assert (theme.room, theme.title) == ("room", "Room")
    assert [question.meta["id"] for question in theme.questions] == ["first", "second"]
    assert theme.gallery.meta["id"] == "wrong_about_room"


def test_pages_that_list_questions_are_no_questions():
    assert page("questions/cards", "").kind == "plain"
    assert page("questions/room/first", "").kind == "question"
    assert page("questions/room/wrong_about_room", "").kind == "gallery"


def test_a_theme_lists_its_questions_with_level_and_description():
    pages = bank_pages()
    text = bank.of_theme(pages["questions/room/index"], pages)
    assert "1. [Is `a` < b?](first.md) · Intro\n\n    About first." in text
    assert "2. [And $c$?](second.md) · Core" in text
    assert "[Wrong](wrong_about_room.md) · [Print this theme](print.md)" in text
    assert bank.of_theme(pages["questions/empty/index"], pages) == ""


def test_the_table_has_a_row_a_question_and_what_a_filter_needs(guide):
    made = bank.table(page("questions/all_questions", ""), bank_pages(), guide)
    first, second = soup(made).select("tbody tr")
    assert first["data-id"] == "first"
    assert first["data-theme"] == "room"
    assert [first["data-level"], second["data-level"]] == ["intro", "core"]
    assert first["data-tags"] == "basics"
    assert first.a["href"] == "../room/first/"
    assert first.a.get_text() == "Is a < b?"
    assert "2 questions in 1 themes" in made


def test_every_wrong_answer_leads_to_its_refutation(guide):
    made = bank.claims(page("questions/wrong_answers", ""), bank_pages(), guide)
    assert "- [“One is two”](room/wrong_about_room.md#one-is-two)" in made
    assert "1 claims" in made


def test_a_card_holds_the_short_answer_with_links_that_lead_on(guide):
    made = bank.cards(page("questions/cards", ""), bank_pages(), guide)
    first, second = soup(made).select("details")
    assert (first["data-id"], first["data-theme"]) == ("first", "room")
    assert first.summary.get_text() == "Is a < b?"
    assert first.strong.get_text() == "Yes"
    links = [a["href"] for a in first.select("a")]
    assert links[0] == "../../implementations/room/mean/#code"
    assert links[1].startswith("https://arxiv.org/")
    assert links[-1] == "../room/first/"
    assert r"\(a &lt; b\)" in str(first.select_one(".arithmatex"))
    assert second["data-level"] == "core"


def test_a_printed_theme_holds_every_answer_once_and_no_code(guide):
    (theme,) = bank.themes(bank_pages())
    text = bank.printable(theme, guide, "https://here.invalid/")
    assert text.startswith('---\ntitle: "For printing: Room"\n')
    assert "https://here.invalid/en/questions/room/" in text
    for stem in ("first", "second"):
        assert f"{{ #{stem} }}" in text
        assert f"### In full {{ #{stem}-in-full }}" in text
        assert f"#### Why {{ #{stem}-why }}" in text
        assert f"[Below]({stem}.md#evidence), and [here](other.md)" in text
    assert text.count("> **Yes**") == 2
    assert "--8<--" not in text
    assert text.count("Attention Is All You Need") == 1


def test_a_claim_without_refutation_or_question_is_a_problem():
    key = "questions/room/wrong_about_room"
    assert not list(check_gallery(page(key, GALLERY)))
    bare = GALLERY.replace("[first](first.md)", "first")
    (problem,) = check_gallery(page(key, bare))
    assert "leads to no question" in str(problem)
    start = GALLERY.index("```python")
    cut = GALLERY[:start] + GALLERY[GALLERY.index("**What") :]
    (problem,) = check_gallery(page(key, cut))
    assert "no cell refutes the claim '“One is two”'" in str(problem)
