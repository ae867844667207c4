"""Which page explains a section, and what stands above folded code."""

from pathlib import Path

from docs._tools.pages import Page
from docs._tools.render import WORDS, folded_title, shown_on


def page(key: str, *cells: str) -> Page:
    fences = "\n".join(f"```python{cell}\n```\n" for cell in cells)
    return Page("en", Path(f"docs/en/{key}.md"), key, f"---\nid: x\n---\n\n{fences}")


SHOW = '\n--8<-- "snippets/a.py:s"'
FOLD = ' tags=["folded"]\n--8<-- "snippets/a.py:s"'
SECTION = ("snippets/a.py", "s")


def test_an_implementation_explains_what_an_application_also_shows():
    built = page("implementations/room/a", SHOW)
    used = page("applications/b", SHOW)
    for order in ((built, used), (used, built)):
        assert shown_on(order)[SECTION] is built


def test_a_practice_page_explains_what_it_folds():
    practised = page("practice/c", FOLD)
    assert shown_on([practised])[SECTION] is practised
    assert shown_on([practised, page("applications/b", SHOW)])[SECTION] is practised


def test_of_applications_the_first_to_show_it_explains():
    folding, first, second = (
        page("applications/a", FOLD),
        page("applications/b", SHOW),
        page("applications/c", SHOW),
    )
    assert shown_on([folding]) == {}
    assert shown_on([folding, first, second])[SECTION] is first


def test_the_line_above_folded_code_names_two_files_at_most():
    two, five = ["a.py", "b.py"], list("abcde")
    assert folded_title(two, WORDS["en"]) == "Folded code: a.py, b.py"
    assert folded_title(five, WORDS["en"]) == "Folded code: a, b and others, 5 files"
    assert folded_title(five, WORDS["zh"]) == "折叠的代码：a, b 等 5 个文件"
