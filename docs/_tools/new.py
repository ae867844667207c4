"""Skeletons of a new page: snippet, test, both languages, stamped."""

from __future__ import annotations

import re
from pathlib import Path

from docs._tools.guide import LANGUAGES, Guide
from docs._tools.pages import HEADINGS, PARTS, load
from docs._tools.parity import stamp_keys
from docs._tools.problems import Stop

STEM = re.compile(r"^[a-z]+(_[a-z]+)*$")
NAMES = {
    "zh": {
        "problem": "解决什么问题",
        "formula": "公式",
        "code": "代码",
        "proof": "证明",
        "cost": "代价",
        "pitfalls": "易错点",
        "practice": "练习",
        "in-one-sentence": "一句话",
        "in-full": "展开说",
        "evidence": "证据",
        "follow-ups": "追问",
        "question": "问题",
        "data": "数据",
        "model": "模型",
        "result": "结果",
        "weights": "权重长什么样",
        "limits": "这里看不出什么",
    },
    "en": {
        "problem": "The problem",
        "formula": "Formula",
        "code": "Code",
        "proof": "Proof",
        "cost": "Cost",
        "pitfalls": "Pitfalls",
        "practice": "Practice",
        "in-one-sentence": "In one sentence",
        "in-full": "In full",
        "evidence": "Evidence",
        "follow-ups": "Follow-ups",
        "question": "The question",
        "data": "Data",
        "model": "Model",
        "result": "Result",
        "weights": "What the weights look like",
        "limits": "What this does not show",
    },
}
WRITE = {"zh": "写在这里。", "en": "Write here."}
SNIPPET = '''"""One sentence: what this file is about."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:demo]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    x_TD = torch.randn(4, 8)
    assert x_TD.shape == (4, 8)
    print("what the page quotes:", tuple(x_TD.shape))
    # --8<-- [end:demo]
'''
IMPLEMENTATION = '''"""One sentence: what this file is about."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:solution]
def double(x_TD: Tensor) -> Tensor:
    """Return twice the input, (T, D)."""
    return 2 * x_TD


# --8<-- [end:solution]

if __name__ == "__main__":
    # --8<-- [start:demo]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    print("what the page quotes:", tuple(double(torch.randn(4, 8)).shape))
    # --8<-- [end:demo]
'''
CHECKS = '''"""Exercise: what the reader writes, and how it is judged."""

from snippets.properties.judge import check
from snippets.properties.kit import agreement

# isort: split
# --8<-- [start:checks]
import torch


@check(en="Twice the input", zh="输出是输入的两倍")
def twice(attempt, draw):
    x = draw.normal(draw.size("T", 1, 4), 3)
    agreement(attempt.double(x), x + x, "the output", "输出")


CHECKS = [twice]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    x = torch.randn(512, 512)
    return lambda: attempt.double(x)


# --8<-- [end:checks]
'''
BUGS = """# Wrong variants of the solution; caught_by names the first check that rejects each.
- name: three-times
  en: The output is half as large again.
  zh: 输出大了一半。
  caught_by: twice
  swap:
    - ["2 * x_TD", "3 * x_TD"]
- name: identity
  en: The output is the input.
  zh: 输出就是输入。
  caught_by: twice
  swap:
    - ["2 * x_TD", "x_TD"]
- name: plus-two
  en: Two is added.
  zh: 变成了加 2。
  caught_by: twice
  swap:
    - ["2 * x_TD", "2 + x_TD"]
- name: sign
  en: The sign is wrong.
  zh: 符号错了。
  caught_by: twice
  swap:
    - ["2 * x_TD", "-2 * x_TD"]
"""
QUESTION_TEST = """def test_the_evidence_prints_what_the_page_quotes(evidence):
    assert "(4, 8)" in evidence.output
"""
TEST = """from tests.running import run_main


def test_the_demonstration_prints_what_the_page_quotes():
    assert "(4, 8)" in run_main("{module}").output
"""


def make(guide: Guide, kind: str, name: str) -> None:
    """Write the files of a page and enter it in the `order:` of its folder."""
    part = next(part for part, of in PARTS.items() if of == kind)
    *rooms, stem = name.split("/")
    if not STEM.match(stem) or len(rooms) != (kind != "application"):
        raise Stop(
            f"{name!r}: write {'stem' if kind == 'application' else 'folder/stem'}, "
            "lower-case English words joined by underscores, no digits"
        )
    pages = load(guide)
    room = rooms[0] if rooms else ""
    folder = f"{part}/{room}".rstrip("/")
    if f"{folder}/index" not in pages:
        known = sorted(
            {
                k.split("/")[1]
                for k in pages
                if k.startswith(f"{part}/") and k.count("/") == 2
            }
        )
        raise Stop(
            f"there is no folder {folder}; there are {', '.join(known)}. A new one begins "
            f"with docs/zh/{folder}/index.md and docs/en/{folder}/index.md"
        )
    key = f"{folder}/{stem}"
    if any(
        page.meta.get("id") == stem for pair in pages.values() for page in pair.values()
    ):
        raise Stop(f"the name {stem!r} is taken by another page")
    base = {
        "question": f"questions/{room}",
        "implementation": room,
        "application": "applications",
    }[kind]
    snippet = guide.root / "snippets" / base / f"{stem}.py"
    test = guide.root / "tests" / base / f"test_{stem}.py"
    if kind == "implementation":
        _write(snippet, IMPLEMENTATION)
        _write(test.with_name(f"exercise_{stem}.py"), CHECKS)
        _write(test.with_name(f"bugs_{stem}.yml"), BUGS)
    else:
        _write(snippet, SNIPPET)
    text = QUESTION_TEST if kind == "question" else TEST
    _write(test, text.format(module=f"snippets.{base}.{stem}".replace("/", ".")))
    for language in LANGUAGES:
        text = _page(kind, stem, snippet.relative_to(guide.root).as_posix(), language)
        _write(guide.docs / language / f"{key}.md", text)
        _enter(guide.docs / language / folder / "index.md", stem)
    stamp_keys(guide, [key, f"{folder}/index"])
    print(
        f"made {key} in both languages, its snippet and its test; `make check` now passes.\n"
        "Cite at least one source: `sources: [key]` from docs/sources.yml and [@key] in the text."
    )


def _page(kind: str, stem: str, snippet: str, language: str) -> str:
    head = [
        f"id: {stem}",
        f"title: {stem}",
        f"description: {WRITE[language]}",
        "tags: [basics]",
        "sources: [vaswani2017]",
    ]
    if kind == "question":
        head += ["level: core", f"evidence: {snippet}"]
    if kind == "application":
        head += ["packages: []"]
    if language == "en":
        head += ["translation: {of: zh, at: stamp-me}"]
    shown = {"implementation": "code", "question": "evidence", "application": "model"}[
        kind
    ]
    body = []
    for part in (name for name in HEADINGS[kind] if not name.endswith("?")):
        body += [f"## {NAMES[language][part]} {{ #{part} }}", "", WRITE[language], ""]
        if part == shown:
            solved = ["solution"] if kind == "implementation" else []
            tag = ' tags=["solution"]'
            body += [
                f'```python{tag if name in solved else ""}\n--8<-- "{snippet}:{name}"\n```\n'
                for name in ["imports", *solved, "demo"]
            ]
        if part == "practice":
            body += [f"> [!TIP]\n> {WRITE[language]}", ""]
        if part == HEADINGS[kind][0]:
            body[-2] += " [@vaswani2017]"
    return "---\n" + "\n".join(head) + "\n---\n\n" + "\n".join(body).rstrip("\n") + "\n"


def _write(path: Path, text: str) -> None:
    if path.exists():
        raise Stop(f"{path} exists already; nothing was overwritten")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def _enter(index: Path, stem: str) -> None:
    text = index.read_text("utf-8")
    if re.search(r"^order: \[", text, re.M):
        text = re.sub(
            r"^order: \[(.*)\]$", rf"order: [\1, {stem}]", text, count=1, flags=re.M
        )
    else:
        text = text.replace("---\n", f"---\norder: [{stem}]\n", 1)
    index.write_text(text.replace("[, ", "["), "utf-8")
