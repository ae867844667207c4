"""Each fault in the sources is told with file, line and remedy."""

import pytest

from docs._tools.parity import stamp_keys
from docs._tools.site import check_all
from tests.tools.conftest import KEY, told


def test_a_guide_without_fault_has_no_problem(fixture):
    assert check_all(fixture.guide) == []


# What is replaced in both languages, by what, and words that the problem must hold.
IN_BOTH = {
    "missing include file": (
        "snippets/room/mean.py:mean",
        "snippets/room/men.py:mean",
        "'snippets/room/men.py' does not exist",
    ),
    "missing section": ("mean.py:mean", "mean.py:median", "no section 'median'"),
    "pasted Python": (
        '--8<-- "snippets/room/mean.py:demo"',
        "print(1)",
        "pasted Python",
    ),
    "unclosed fence": (
        'test_mean.py:is-mean"\n```',
        'test_mean.py:is-mean"\n',
        "never closed",
    ),
    "unknown key": (
        "tags: [basics]",
        "tags: [basics]\nlevle: core",
        "unknown front-matter key `levle`",
    ),
    "missing key": ("tags: [basics]\n", "", "lacks `tags`"),
    "mistyped key": ("tags: [basics]", "tags: basics", "`tags` is a str"),
    "front matter is no YAML": ("tags: [basics]", "tags: [basics", "not YAML"),
    "unknown tag": ("tags: [basics]", "tags: [basic]", "unknown tag 'basic'"),
    "unknown source": ("vaswani2017", "vaswani2071", "unknown source 'vaswani2071'"),
    "source not cited": (" [@vaswani2017, §3]", "", "listed, not cited"),
    "source not listed": (
        "[@vaswani2017, §3]",
        "[@vaswani2017] [@other]",
        "'other' is cited, not listed",
    ),
    "id is not the stem": ("id: mean", "id: average", "not the file's name"),
    "heading without id": (" { #cost }", "", "has no id"),
    "heading id twice": ("{ #cost }", "{ #code }", "is taken"),
    "part of the page missing": ("{ #cost }", "{ #price }", "`#cost` is missing"),
    "broken link": ("](#formula)", "](../nowhere.md)", "leads nowhere"),
    "broken anchor": ("](#formula)", "](#formulas)", "no anchor #formulas"),
    "broken image": ("](#formula)", "](picture.png)", "'picture.png' does not exist"),
    "absolute link": ("](#formula)", "](/questions/)", "is absolute"),
    "link without https": ("](#formula)", "](http://a.example)", "is not https"),
    "paper linked by hand": (
        "](#formula)",
        "](https://arxiv.org/abs/1706.03762)",
        "is a paper linked by hand",
    ),
    "formula cannot be rendered": ("\\bar{", "\\unknowncommand{", "cannot be rendered"),
    "unknown cell tag": (
        '```python\n--8<-- "snippets/room/mean.py:demo',
        '```python tags=["skip"]\n--8<-- "snippets/room/mean.py:demo',
        "unknown cell tag 'skip'",
    ),
    "exception without name": (
        '```python\n--8<-- "snippets/room/mean.py:demo',
        '```python tags=["raises-exception"]\n--8<-- "snippets/room/mean.py:demo',
        "says how",
    ),
    "empty cell": ('--8<-- "snippets/room/mean.py:demo"\n', "", "is empty"),
    "first-level heading": ("## ", "# ", "first-level heading"),
    "unused section": (
        '```python\n--8<-- "snippets/room/mean.py:demo"\n```\n',
        "",
        "section `demo` is shown by no page",
    ),
}


@pytest.mark.parametrize("case", IN_BOTH)
def test_fault_in_both_languages(fixture, case):
    old, new, words = IN_BOTH[case]
    fixture.edit_both(old, new)
    told(check_all(fixture.guide), words)


# What is replaced in English only.
IN_ENGLISH = {
    "heading ids differ": ("{ #cost }", "{ #price }", "heading ids differ"),
    "includes differ": ("mean.py:demo", "mean.py:mean", "cells differ"),
    "formulas differ": ("\\frac{1}{T}", "\\frac{1}{S}", "formulas differ"),
    "callouts differ": ("[!NOTE]", "[!TIP]", "callouts differ"),
    "links differ": ("](#formula)", "](#code)", "links differ"),
    "front matter differs": ("tags: [basics]", "tags: []", "`tags` differs"),
    "term to avoid": ("Words.", "A masque.", "'masque' is not the agreed term"),
}


@pytest.mark.parametrize("case", IN_ENGLISH)
def test_fault_in_english_only(fixture, case):
    old, new, words = IN_ENGLISH[case]
    fixture.edit(fixture.path("en"), old, new)
    problem = told(check_all(fixture.guide), words)
    assert problem.path == fixture.path("en")


def test_the_line_of_a_fault_is_the_line_in_the_file(fixture):
    fixture.edit_both("tags: [basics]", "tags: [basic]")
    problem = told(check_all(fixture.guide), "unknown tag")
    line = problem.path.read_text("utf-8").splitlines()[problem.line - 1]
    assert line == "tags: [basic]"
    fixture.edit_both('--8<-- "snippets/room/mean.py:demo"', "print(1)")
    problem = told(check_all(fixture.guide), "pasted Python")
    assert problem.path.read_text("utf-8").splitlines()[problem.line - 1] == "print(1)"


def test_page_in_one_language_only(fixture):
    fixture.path("en").unlink()
    told(
        check_all(fixture.guide),
        "exists in zh only",
        "docs/en/implementations/room/mean.md",
    )


def test_two_pages_with_one_id(fixture):
    for language in ("zh", "en"):
        other = fixture.guide.docs / language / "implementations/mean.md"
        other.write_text(fixture.path(language).read_text("utf-8"), "utf-8")
        fixture.edit(
            fixture.path(language, "implementations/index"), "[room]", "[room, mean]"
        )
    stamp_keys(fixture.guide, ["implementations/mean", "implementations/index"])
    told(check_all(fixture.guide), "id 'mean' is taken")


def test_page_that_no_order_names(fixture):
    for language in ("zh", "en"):
        fixture.edit(
            fixture.path(language, "implementations/room/index"), "[mean]", "[median]"
        )
    problems = check_all(fixture.guide)
    told(problems, "order does not name 'mean'")
    told(problems, "order names 'median'")


def test_original_changed_and_translation_not(fixture):
    fixture.edit(fixture.path("zh"), "说明。", "新的说明。")
    problem = told(
        check_all(fixture.guide), "behind its original", "make stamp P=" + KEY
    )
    assert problem.path == fixture.path("en")
    stamp_keys(fixture.guide, [KEY])
    assert check_all(fixture.guide) == []


def test_translation_marked_stale_passes(fixture):
    fixture.edit(fixture.path("zh"), "说明。", "新的说明。")
    fixture.edit(fixture.path("en"), "{of: zh, at:", "{of: zh, stale: true, at:")
    assert check_all(fixture.guide) == []


def test_translation_key_in_neither_page(fixture):
    text = fixture.path("en").read_text("utf-8")
    line = next(x for x in text.splitlines() if x.startswith("translation"))
    fixture.edit(fixture.path("en"), f"{line}\n", "")
    told(check_all(fixture.guide), "0 of the two pages say")


def test_chinese_term_to_avoid(fixture):
    fixture.edit(fixture.path("zh"), "说明。", "一个遮罩。")
    stamp_keys(fixture.guide, [KEY])
    problem = told(check_all(fixture.guide), "'遮罩' is not the agreed term", "掩码")
    assert problem.path == fixture.path("zh")


def test_an_agreed_term_may_hold_one_to_avoid(fixture):
    with (fixture.guide.docs / "glossary.yml").open("a", encoding="utf-8") as file:
        file.write(
            "- {id: padding, zh: 填充遮罩层, en: words, note_zh: 填。, note_en: Pads., "
            "page: implementations/room/mean}\n"
        )
    fixture.edit(fixture.path("zh"), "说明。", "填充遮罩层。")
    stamp_keys(fixture.guide, [KEY])
    assert check_all(fixture.guide) == []


def test_a_term_is_introduced_with_its_agreed_chinese(fixture):
    fixture.edit(fixture.path("zh"), "说明。", "布尔面罩 (mask) 与掩码 (mask)。")
    stamp_keys(fixture.guide, [KEY])
    problem = told(check_all(fixture.guide), "'布尔面罩 (mask)'", "write 掩码 (mask)")
    assert problem.path == fixture.path("zh")


def test_what_a_page_introduces_stands_in_the_glossary(fixture):
    fixture.edit(
        fixture.path("zh"), "说明。", "面纱 (veil)、面纱 (Veil)、面纱（veil）。"
    )
    stamp_keys(fixture.guide, [KEY])
    problem = told(
        check_all(fixture.guide), "'面纱 (veil)' introduces a term", "add it"
    )
    assert problem.path == fixture.path("zh")


def test_another_form_of_an_agreed_term(fixture):
    terms = fixture.guide.docs / "glossary.yml"
    fixture.edit(terms, "en: mask,", "en: mask, also: [veil],")
    fixture.edit(fixture.path("zh"), "说明。", "掩码 (veil)，面纱 (veil)。")
    stamp_keys(fixture.guide, [KEY])
    told(
        check_all(fixture.guide),
        "面纱 (veil)' is not the agreed term",
        "掩码 (mask)",
    )


def test_a_term_is_defined_on_a_page(fixture):
    fixture.edit(fixture.guide.docs / "glossary.yml", "room/mean", "room/other")
    told(check_all(fixture.guide), "'mask' is defined on", "which does not exist")


def test_the_page_that_defines_a_term_says_it(fixture):
    fixture.edit(fixture.guide.docs / "glossary.yml", "en: mask", "en: veil")
    told(check_all(fixture.guide), "mean.md does not say 'veil' (en)")


def test_section_that_never_ends(fixture):
    fixture.edit(fixture.snippet, "# --8<-- [end:mean]\n", "")
    told(check_all(fixture.guide), "section `mean` never ends")


def test_section_that_is_not_python(fixture):
    fixture.edit(fixture.snippet, "return x_TD.mean(0)", "return x_TD.mean(0")
    problem = told(check_all(fixture.guide), "section `mean` is not Python")
    assert problem.path == fixture.snippet
    assert "return" in fixture.snippet.read_text("utf-8").splitlines()[problem.line - 1]


def test_section_that_starts_twice(fixture):
    fixture.edit(fixture.snippet, "[start:demo]", "[start:mean]")
    told(check_all(fixture.guide), "section `mean` starts twice")


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("glossary.yml", "zh: 掩码, ", "", "lacks zh"),
        ("glossary.yml", "page: implementations/room/mean, ", "", "lacks page"),
        ("sources.yml", "  year: 2017\n", "", "lacks year"),
        ("sources.yml", "  arxiv: '1706.03762'\n", "", "has no link"),
        ("glossary.yml", "{id", "[{id", "cannot be read as YAML"),
    ],
)
def test_fault_in_a_data_file(fixture, name, old, new, words):
    fixture.edit(fixture.guide.docs / name, old, new)
    told(check_all(fixture.guide), words)


def test_unused_source(fixture):
    with (fixture.guide.docs / "sources.yml").open("a", encoding="utf-8") as file:
        file.write(
            "other2020:\n  cite: Other 2020\n  title: T\n  authors: A\n"
            "  year: 2020\n  url: https://example.org\n"
        )
    told(check_all(fixture.guide), "'other2020' is cited by no page")


def test_two_entries_mixed_into_one_are_told(fixture):
    path = fixture.guide.docs / "sources.yml"
    fixture.edit(path, "  year: 2017\n", "  year: 2017\n  authors: Somebody Else\n")
    told(check_all(fixture.guide), "sources.yml", "a field twice")
