"""Which page explains a section: implementations and practice first, then applications."""

from pathlib import Path

from docs._tools.pages import Page
from docs._tools.render import shown_on


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
