"""A question bank of one theme in one language, as pages, for tests of the tools."""

from pathlib import Path

from docs._tools.pages import Page

QUESTION = """\
---
id: {stem}
title: {title}
description: About {stem}.
tags: [basics]
sources: [{sources}]
level: {level}
evidence: snippets/questions/room/{stem}.py
---

## In one sentence {{ #in-one-sentence }}

**Yes**: $a < b$, [see](../../implementations/room/mean.md#code) [@vaswani2017, §3].

## In full {{ #in-full }}

| a | b |
|---|---|
| 1 | 2 |

### Why {{ #why }}

[Below](#evidence), and [here](other.md).

## Evidence {{ #evidence }}

It prints 2.

```python
--8<-- "snippets/room/mean.py:demo"
```

## Follow-ups {{ #follow-ups }}

**More?** `x < y`.

## Pitfalls {{ #pitfalls }}

- None.
"""
GALLERY = """\
---
id: wrong_about_room
title: Wrong
description: What is told wrongly.
tags: [basics]
---

Words.

## “One is two” { #one-is-two }

```python
--8<-- "snippets/room/mean.py:demo"
```

**What holds.** Question: [first](first.md).
"""


def page(key: str, text: str, language: str = "en") -> Page:
    return Page(language, Path(f"docs/{language}/{key}.md"), key, text)


def bank_pages(titles: dict[str, str] | None = None, language: str = "en") -> dict:
    """Return the pages of a bank: {stem: title} in a theme called room."""
    titles = titles or {"first": "Is `a` < b?", "second": "And $c$?"}
    head = "---\nid: {}\ntitle: {}\ndescription: All.\norder: [{}]\n---\n\nText.\n"
    order = ", ".join([*titles, "wrong_about_room"])
    texts = {
        "questions/index": head.format("questions", "Questions", "room, empty"),
        "questions/room/index": head.format("questions-room", "Room", order),
        "questions/empty/index": head.format("questions-empty", "Empty", "nothing"),
        "questions/room/wrong_about_room": GALLERY,
    } | {
        f"questions/room/{stem}": QUESTION.format(
            stem=stem,
            title=title,
            level="core" if number else "intro",
            sources="" if number else "vaswani2017",
        )
        for number, (stem, title) in enumerate(titles.items())
    }
    return {key: page(key, text, language) for key, text in texts.items()}
