"""Exercise and find-the-bug notebooks, and the tables of the practice pages."""

from __future__ import annotations

import base64
import sys
import zlib
from pathlib import Path
from posixpath import relpath

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from docs._tools import exercises, notebooks
from docs._tools.exercises import Bug, Exercise
from docs._tools.guide import Guide
from docs._tools.includes import Library
from docs._tools.pages import Page, load
from docs._tools.problems import Stop

HIDDEN = {"jupyter": {"source_hidden": True}, "tags": ["hide-input"]}
WORDS = {
    "zh": {
        "exercise": "练习：",
        "find": "找 bug：",
        "given": "## 已给出的代码与待写的代码\n\n先依次运行。把 `raise NotImplementedError` 换成你的代码。",
        "kit": "## 检查\n\n下面两格是性质检查工具和本题的检查，不用读，运行即可（折叠着）。",
        "judge": "这一格给出结论：哪条性质不成立，最小的反例是什么。改完代码，重新运行你的那一格和这一格。",
        "beside": "## 时间与内存\n\n和参考实现比一比。参考实现打了包，免得无意中看到答案。",
        "wrong": "下面的代码有一处错误，真实项目里犯过同样的错。\n\n"
        "1. 找出这一处。\n2. 它会让输出变成什么样？先写下你的判断。\n3. 再运行后面的检查，看哪条性质不成立。",
        "try": "在这里做实验：",
        "answer": "答案",
        "happened": "真实出处：",
        "invitation": "[下载练习笔记本]({link})，或在仓库里运行 `make exercise P={stem}`。",
        "count": "{} 种错误实现",
        "rejects": "它的检查能拦下{}。",
        "heads": {
            "exercises": ("练习", "笔记本", "检查", "bug"),
            "find": ("属于", "题目"),
            "bugs": ("它让输出变成什么样", "哪条检查拦下它", "真实出处"),
        },
        "download": "下载",
        "comma": "、",
        "number": "第 {} 题",
        "total": "共 {} 个练习，{} 个错误实现，其中 {} 个在真实项目里出现过。",
    },
    "en": {
        "exercise": "Exercise: ",
        "find": "Find the bug: ",
        "given": "## What is given, and what you write\n\nRun the cells in order. Replace "
        "`raise NotImplementedError` by your code.",
        "kit": "## Checks\n\nThe next two cells hold the property kit and this exercise's "
        "checks, folded: run them, no need to read.",
        "judge": "This cell tells which property is broken, and on which smallest input. "
        "After a change run your cell and this one again.",
        "beside": "## Time and memory\n\nBeside the reference, which is packed so that you "
        "do not read the answer by accident.",
        "wrong": "The code below has one mistake, which was made in a real project, too."
        "\n\n1. Find it.\n2. What does it do to the output? "
        "Write your guess down.\n3. Then run the checks and see which property is broken.",
        "try": "Experiment here:",
        "answer": "Answer",
        "happened": "Where it happened: ",
        "invitation": "[Download the exercise notebook]({link}), or run `make exercise "
        "P={stem} IN=en` in the repository. ",
        "count": "{} wrong implementations",
        "rejects": "Its checks reject {}.",
        "heads": {
            "exercises": ("Exercise", "Notebook", "Checks", "Bugs"),
            "find": ("Belongs to", "Puzzles"),
            "bugs": (
                "What it does to the output",
                "Rejected by",
                "Where it happened",
            ),
        },
        "download": "download",
        "comma": ", ",
        "number": "puzzle {}",
        "total": "{} exercises, {} wrong implementations, {} of which happened in real projects.",
    },
}


def exercise_notebook(exercise: Exercise, site_url: str) -> NotebookNode:
    """Return the notebook in which a reader writes the solution of a page."""
    page = exercise.page
    words = WORDS[page.language]
    statement = notebooks.for_jupyter(
        page.section("practice"), page, exercise.guide, site_url
    )
    given = [
        new_code_cell(exercises.blanked(code) if blank else code)
        for code, blank in exercise.cells
    ]
    packed = base64.b85encode(zlib.compress(exercise.whole().encode(), 9)).decode()
    timed = f"print(beside(globals(), {packed!r}, workload, {page.language!r}))"
    return _notebook(
        exercise,
        site_url,
        f"# {words['exercise']}{page.meta['title']}\n\n{statement}",
        [new_markdown_cell(words["given"]), *given],
        [new_markdown_cell(words["beside"]), new_code_cell(timed, metadata=HIDDEN)],
    )


def bug_notebook(
    exercise: Exercise, bug: Bug, number: int, site_url: str
) -> NotebookNode:
    """Return the notebook that shows a bug that was real and asks what it does."""
    page = exercise.page
    words = WORDS[page.language]
    code = exercise.with_solution(bug.plant(exercise.solution))
    answer = (
        f"<details><summary>{words['answer']}</summary>\n\n{bug.said[page.language]}\n\n"
        f"{words['happened']}<{bug.real}>\n\n</details>"
    )
    return _notebook(
        exercise,
        site_url,
        f"# {words['find']}{page.meta['title']} {number}\n\n{words['wrong']}",
        [
            *map(new_code_cell, code),
            new_markdown_cell(words["try"]),
            new_code_cell(""),
        ],
        [new_markdown_cell(answer)],
    )


def _notebook(
    exercise: Exercise, site_url: str, head: str, code: list, end: list
) -> NotebookNode:
    page = exercise.page
    words = WORDS[page.language]
    future = "from __future__ import annotations\n"
    kit = exercises.join(exercise.kit)
    kit = future + kit.replace(future, "")
    sources = [cell.source for cell in code if cell.cell_type == "code"]
    needs = notebooks.requirements(page, [*sources, kit, exercise.checks])
    about = notebooks.WORDS[page.language]["needs"]
    cells = [
        new_markdown_cell(f"{head}\n\n{about}<{site_url}{notebooks.page_url(page)}>"),
        new_code_cell(f"# %pip install {' '.join(needs)}"),
        *code,
        new_markdown_cell(words["kit"]),
        new_code_cell(kit, metadata=HIDDEN),
        new_code_cell(exercise.checks, metadata=HIDDEN),
        new_markdown_cell(words["judge"]),
        new_code_cell(f"print(judge(globals(), CHECKS, language={page.language!r}))"),
        *end,
    ]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    return new_notebook(cells=cells, metadata={"kernelspec": notebooks.KERNEL})


def real_bugs(exercise: Exercise) -> list[Bug]:
    """Return the planted bugs that happened somewhere: each becomes a notebook."""
    return [bug for bug in exercise.bugs if bug.real]


def files(exercise: Exercise, site_url: str) -> dict[str, NotebookNode]:
    """Return {path below the site of the language: notebook} of one exercise."""
    made = {address(exercise): exercise_notebook(exercise, site_url)}
    for number, bug in enumerate(real_bugs(exercise), 1):
        made[bug_address(exercise, number)] = bug_notebook(
            exercise, bug, number, site_url
        )
    return made


def address(exercise: Exercise) -> str:
    """Return where the notebook of an exercise is published, below its language."""
    return f"{exercise.page.key}/{exercise.stem}_exercise.ipynb"


def bug_address(exercise: Exercise, number: int) -> str:
    """Return where a find-the-bug notebook is published; its name tells nothing."""
    return f"practice/find_the_bug/{exercise.stem}_{number}.ipynb"


def addresses(exercise: Exercise) -> list[str]:
    """Return where the notebooks of `files` are published."""
    count = len(real_bugs(exercise))
    puzzles = [bug_address(exercise, number) for number in range(1, count + 1)]
    return [address(exercise), *puzzles]


def invitation(exercise: Exercise) -> str:
    """Return the last lines of a page's practice section."""
    words = WORDS[exercise.page.language]
    link = f"{exercise.stem}/{exercise.stem}_exercise.ipynb"
    said = words["invitation"].format(link=link, stem=exercise.stem)
    count = words["count"].format(len(exercise.bugs))
    listed = exercise.guide.docs / exercise.page.language / "practice/planted_bugs.md"
    if listed.exists():
        up = "../" * exercise.page.key.count("/")
        count = f"[{count}]({up}practice/planted_bugs.md#{exercise.stem})"
    return said + words["rejects"].format(count)


TABLES = ("exercises", "find_the_bug", "planted_bugs")


def table(page: Page, found: list[Exercise]) -> str:
    """Return the generated part of a practice page: its name says which."""
    lines = {"exercises": _exercises, "find_the_bug": _puzzles, "planted_bugs": _bugs}
    words = WORDS[page.language]
    bugs = [bug for exercise in found for bug in exercise.bugs]
    total = words["total"].format(
        len(found), len(bugs), sum(bool(bug.real) for bug in bugs)
    )
    made = lines[page.key.rpartition("/")[2]](found, words)
    return "\n".join(["", total, "", *made, ""])


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _head(cells: tuple) -> list[str]:
    return [_row(*cells), "|" + "---|" * len(cells)]


def _to(path: str) -> str:
    return relpath(path, "practice")


def _title(exercise: Exercise) -> str:
    return f"[{exercise.page.meta['title']}]({_to(exercise.page.key)}.md#practice)"


def _exercises(found: list[Exercise], words: dict) -> list[str]:
    lines = _head(words["heads"]["exercises"])
    for one in found:
        link = f"[{words['download']}]({_to(address(one))})"
        lines.append(_row(_title(one), link, len(one.titles), len(one.bugs)))
    return lines


def _puzzles(found: list[Exercise], words: dict) -> list[str]:
    lines = _head(words["heads"]["find"])
    for one in found:
        links = [
            f"[{words['number'].format(n)}]({_to(bug_address(one, n))})"
            for n, _ in enumerate(real_bugs(one), 1)
        ]
        if links:
            lines.append(_row(_title(one), words["comma"].join(links)))
    return lines


def _bugs(found: list[Exercise], words: dict) -> list[str]:
    lines = []
    for one in found:
        language = one.page.language
        lines += [
            f"### {one.page.meta['title']} {{ #{one.stem} }}",
            "",
            *_head(words["heads"]["bugs"]),
        ]
        for bug in one.bugs:
            real = f"[{_short(bug.real)}]({bug.real})" if bug.real else ""
            title = one.titles[bug.caught_by][language]
            lines.append(_row(bug.said[language], title, real))
        lines.append("")
    return lines


def _short(link: str) -> str:
    """Return owner/name#number as repository#number for an issue, else the host."""
    parts = link.split("/")
    if len(parts) > 6 and parts[5] in {"issues", "pull", "discussions"}:
        return f"{parts[4]}#{parts[6].partition('#')[0]}"
    return parts[4] if len(parts) > 4 else parts[2]


def write(guide: Guide, stem: str, language: str) -> Path:
    """Write the notebook of one exercise where a reader works; never over their work."""
    library = Library.read(guide)
    found = exercises.all_of(load(guide), library, guide, language)
    by_stem = {one.stem: one for one in found}
    if stem not in by_stem:
        raise Stop(f"no exercise is named {stem!r}: there are {', '.join(by_stem)}")
    path = guide.root / "exercises" / language / f"{stem}.ipynb"
    if path.exists():
        said = f"{path.relative_to(guide.root)} is there already: your work is kept"
        print(said, file=sys.stderr)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(exercise_notebook(by_stem[stem], notebooks.site_address()), path)
    return path
