"""The decks are opened with Anki's own library, as a learner opens them."""

import time

import pytest

from docs._tools import anki as decks
from docs._tools.includes import Library
from tests.tools.bank_pages import bank_pages

collection = pytest.importorskip("anki.collection")


@pytest.fixture
def learner(tmp_path):
    """An empty collection."""
    opened = collection.Collection(str(tmp_path / "collection.anki2"))
    yield opened
    opened.close()


@pytest.fixture
def deck(guide, tmp_path):
    """A function that writes a deck of questions and imports it; how many notes are new."""

    def made(learner, titles=None, language="en", site="https://here.invalid/"):
        path = tmp_path / "deck.apkg"
        pages = bank_pages(titles, language)
        count = decks.write(guide, Library.read(guide), pages, site, path)
        options = collection.ImportAnkiPackageOptions(merge_notetypes=True)
        request = collection.ImportAnkiPackageRequest(
            package_path=str(path), options=options
        )
        log = learner.import_anki_package(request).log
        assert log.found_notes == count
        return len(log.new)

    return made


def note(learner, identity):
    (found,) = learner.find_notes(f"Id:{identity}")
    return learner.get_note(found)


def test_each_question_is_a_card_in_its_theme(learner, deck):
    assert deck(learner) == 2
    assert learner.card_count() == 2
    assert "The attention guide::Room" in [
        d.name for d in learner.decks.all_names_and_ids()
    ]
    assert note(learner, "first").tags == ["intro", "room"]


def test_a_card_shows_question_answer_code_and_where_to_read_on(learner, deck):
    deck(learner)
    card = note(learner, "first").cards()[0]
    assert "Is <code>a</code> &lt; b?" in card.question()
    shown = card.answer()
    for part in (
        "<strong>Yes</strong>",
        "<table>",
        "print(",
        'href="https://here.invalid/en/questions/room/first/"',
        'href="https://here.invalid/en/implementations/room/mean/#code"',
        'href="https://here.invalid/en/questions/room/other/"',
    ):
        assert part in shown, part
    assert "{{" not in shown


def test_formulas_are_set_by_anki(learner, deck):
    """Anki hands what stands between these brackets to MathJax."""
    deck(learner)
    assert r"\(a &lt; b\)" in note(learner, "first").cards()[0].answer()


def test_an_update_changes_the_text_and_keeps_what_was_learned(learner, deck):
    deck(learner)
    card = note(learner, "first").cards()[0]
    learner.decks.select(card.did)
    shown = learner.sched.getCard()
    shown.start_timer()
    learner.sched.answerCard(shown, 3)
    before = learner.get_card(shown.id)
    assert before.reps == 1
    time.sleep(1.1)  # Anki takes a note as newer by whole seconds
    titles = {"third": "New?", "second": "Changed?", "first": "Changed, too?"}
    assert deck(learner, titles) == 1
    after = learner.get_card(shown.id)
    assert (after.reps, after.due, after.ivl) == (before.reps, before.due, before.ivl)
    assert note(learner, "first")["Question"] == "Changed, too?"
    assert note(learner, "second")["Question"] == "Changed?"
    assert learner.note_count() == 3


def test_the_languages_do_not_mix(learner, deck):
    deck(learner)
    assert deck(learner, language="zh") == 2
    assert learner.note_count() == 4
    names = {d.name for d in learner.decks.all_names_and_ids()}
    assert {"The attention guide::Room", "注意力指南::Room"} <= names
