"""The last touches on HTML and on the search index."""

from __future__ import annotations

import json
from pathlib import Path

from docs._tools import dress
from docs._tools.pages import Page


def page(key: str, language: str = "zh", **meta) -> Page:
    front = "".join(f"{name}: {value}\n" for name, value in meta.items())
    return Page(language, Path(f"{key}.md"), key, f"---\n{front}---\n")


def code(inside: str) -> str:
    return dress.content(f"<pre><span></span><code>{inside}</code></pre>", "en")


def test_code_keeps_its_text_and_loses_its_weight():
    heavy = (
        '<span class="k">def</span><span class="w"> </span><span class="nf">f</span>'
        '<span class="p">(</span><span class="n">x</span><span class="p">):</span>\n'
        '<span class="w">    </span><span class="k">return</span> <span class="s2">"a &lt; b"</span>'
        '  <span class="c1"># why</span>'
    )
    assert code(heavy) == (
        "<pre><code><b>def</b> <dfn>f</dfn>(x):\n    <b>return</b> "
        '<u>"a &lt; b"</u>  <i># why</i></code></pre>'
    )


def test_neighbors_of_one_kind_are_joined():
    assert "<b>is not</b>" in code(
        '<span class="ow">is</span> <span class="ow">not</span>'
    )


def test_only_code_that_a_phone_cannot_show_takes_the_focus():
    assert 'tabindex="0"' not in code("x" * 40)
    assert 'tabindex="0"' in code("x" * 41)
    assert 'tabindex="0"' in code("字" * 21)
    assert 'tabindex="0"' not in code('<span class="k">if</span>' * 3)


def test_tables_get_a_box_and_outputs_no_copy_button():
    dressed = dress.content(
        '<table><tr></tr></table><div class="output highlight">', "en"
    )
    assert dressed == (
        '<div class="table" tabindex="0"><table class="plain"><tr></tr></table></div>'
        '<div class="no-copy output highlight">'
    )


def test_callouts_speak_the_language_of_the_page():
    title = '<p class="admonition-title">Warning</p>'
    assert dress.content(title, "zh") == title.replace("Warning", "注意")
    assert dress.content(title, "en") == title


def test_indents_go_except_where_they_count():
    whole = (
        "<p>\n    a\n\n    b\n</p>\n<pre>\n    kept\n\n</pre>\n\n  <i>c</i>\n<b>d</b>"
    )
    assert dress.page(whole) == (
        "<p>\na\nb</p>\n<pre>\n    kept\n\n</pre>\n<i>c</i>\n<b>d</b>"
    )


def test_index_keeps_names_of_code_and_describes_pages():
    pages = {
        "a/mean": {
            "zh": page("a/mean", "zh", title="平均", description="注意力机制的平均"),
            "en": page("a/mean", "en", title="The mean & more", description="Means"),
        }
    }
    index = {
        "docs": [
            {"location": "a/mean/", "text": ""},
            {
                "location": "a/mean/#code",
                "text": "<p>why</p> <pre><code>class Mean:\n    def __init__(self):\n    def forward(self):\n        x = 1"
                "</code></pre>",
            },
            {"location": "elsewhere/", "text": "as it was"},
        ]
    }
    whole, section, other = json.loads(
        dress.search_index(json.dumps(index), pages, "zh")
    )["docs"]
    assert section["text"] == "<p>why</p>  Mean __init__ forward "
    assert "平均" in whole["text"]
    assert "The mean &amp; more" in whole["text"]
    assert "Mean forward" in whole["text"]
    assert other["text"] == "as it was"


def test_lists_are_not_found_and_prose_about_the_site_last():
    assert dress.search_weight(page("a/index")) == {"exclude": True}
    assert dress.search_weight(page("about/glossary")) == {"boost": 0.5}
    assert dress.search_weight(page("questions/a/b")) == {}


def test_reading_order_is_that_of_the_index():
    pages = {key: page(key) for key in ("p/a/one", "p/a/two", "p/b/three", "p/a/index")}
    text = "[2](a/two.md) [1](a/one.md#x) [2](a/two.md) [a](a/index.md) [?](gone.md)"
    pages["p/index"] = Page(
        "zh", Path("index.md"), "p/index", f"---\nid: p\n---\n{text}\n"
    )
    assert dress.reading_order(pages, "p") == ["p/a/two", "p/a/one"]
    assert dress.reading_order(pages, "none") == []


def test_files_that_no_page_asks_for_are_left_out():
    assert dress.unused("assets/javascripts/bundle.js.map")
    assert dress.unused("assets/javascripts/lunr/wordcut.js")
    assert not dress.unused("assets/javascripts/bundle.js")
