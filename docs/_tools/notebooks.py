"""Pages as notebooks: one to run, one a language to download."""

from __future__ import annotations

import ast
import os
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from posixpath import normpath

import jupytext
import nbformat
from nbformat import NotebookNode

from docs._tools import hints, references
from docs._tools.guide import Guide
from docs._tools.includes import Library
from docs._tools.pages import HEADING, Page
from docs._tools.problems import stop_if

CALLOUT = re.compile(r"^> \[!(\w+)\]\s*$", re.M)
WORDS = {
    "zh": {
        "NOTE": "说明",
        "TIP": "提示",
        "WARNING": "注意",
        "IMPORTANT": "要点",
        "CAUTION": "小心",
        "needs": "本笔记本需要以下软件包；缺少时去掉行首的 `#` 再运行。网页版：",
    },
    "en": {
        "NOTE": "Note",
        "TIP": "Tip",
        "WARNING": "Warning",
        "IMPORTANT": "Important",
        "CAUTION": "Caution",
        "needs": "This notebook needs the packages below; if one is missing, remove the "
        "`#` and run the cell. The page on the web: ",
    },
}
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def code_of(page: Page, library: Library) -> list[str]:
    """Return the code of each cell of a page; stop when an include is wrong."""
    cells, problems = [], []
    for block in page.cells:
        code, found = library.cell(page, block)
        cells.append(code)
        problems += found
    stop_if(problems)
    return cells


def to_run(page: Page, library: Library) -> NotebookNode:
    """Return the notebook whose outputs serve both languages: cells only."""
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": KERNEL})
    for block, code in zip(page.cells, code_of(page, library), strict=True):
        cell = nbformat.v4.new_code_cell(code)
        cell.id = f"line-{block.line}"
        cell.metadata["tags"] = [t for t in block.tags if t == "raises-exception"]
        notebook.cells.append(cell)
    return notebook


def to_download(
    page: Page, library: Library, guide: Guide, site_url: str
) -> NotebookNode:
    """Return the notebook a reader downloads: prose and code, no outputs."""
    codes = iter(code_of(page, library))
    text = []
    for block in page.blocks:
        if block.is_code:
            text += ["```python", *next(codes).splitlines(), "```"]
        elif block.language is None:
            prose = "\n".join(block.lines)
            text += for_jupyter(prose, page, guide, site_url).split("\n")
        else:
            text += [f"```{block.language}", *block.lines, "```"]
    tail = for_jupyter(references.source_list(page, guide), page, guide, site_url)
    notebook = jupytext.reads("\n".join([*text, *tail.split("\n")]), fmt="md")
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    address = f"{site_url}{page_url(page)}"
    words = WORDS[page.language]
    needs = requirements(
        page, [c.source for c in notebook.cells if c.cell_type == "code"]
    )
    notebook.cells[:0] = [
        nbformat.v4.new_markdown_cell(
            f"# {page.meta['title']}\n\n{page.meta['description']}\n\n"
            f"{words['needs']}<{address}>"
        ),
        nbformat.v4.new_code_cell("\n".join(_installing(needs, page, guide))),
    ]
    raising = [i for i, block in enumerate(page.cells) if block.option("raises")]
    cells = [c for c in notebook.cells if c.cell_type == "code"][1:]
    for number in raising:
        cells[number].metadata["tags"] = ["raises-exception"]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    return notebook


def _installing(needs: list[str], page: Page, guide: Guide) -> list[str]:
    """Return the lines that install what a notebook needs.

    Only the files of data packages are used: they come without their dependencies, and
    those that only a source archive holds (group `sdist`) are downloaded.
    """
    data = page.meta.get("packages", [])
    project = guide.root / "pyproject.toml"
    groups = tomllib.loads(project.read_text("utf-8")) if project.exists() else {}
    archives = groups.get("dependency-groups", {}).get("sdist", [])
    rows = {
        "install": [need for need in needs if need not in data],
        "install --no-deps": [need for need in data if need not in archives],
        "download --no-deps --no-binary :all:": [n for n in data if n in archives],
    }
    return [f"# %pip {how} {' '.join(row)}" for how, row in rows.items() if row]


def site_address() -> str:
    """Return the address of the site's root, with its last slash."""
    return os.environ.get("SITE_URL", "http://127.0.0.1:8000/").rstrip("/") + "/"


def page_url(page: Page) -> str:
    """Return the address of a page below the site's root."""
    path = (
        "" if page.key == "index" else f"{page.key.removesuffix('index').rstrip('/')}/"
    )
    return path if page.language == "zh" else f"{page.language}/{path}"


def for_jupyter(prose: str, page: Page, guide: Guide, site_url: str) -> str:
    """Turn what only the site understands into plain Markdown."""
    prose = hints.for_notebook(references.cite(prose, guide), page.language)
    prose = "\n".join(
        f"{m[1]} {m['text']}" if (m := HEADING.match(line)) else line
        for line in prose.split("\n")
    )
    prose = CALLOUT.sub(
        lambda m: f"> **{WORDS[page.language].get(m[1], m[1])}**\n>", prose
    )

    def absolute(match: re.Match) -> str:
        target = match["target"]
        path, _, anchor = target.partition("#")
        if not path.endswith(".md") or ":" in target:
            return match[0]
        key = normpath(f"{page.key.rpartition('/')[0]}/{path}").lstrip("/")[:-3]
        other = Page(page.language, Path(path), key, "")
        anchor = f"#{anchor}" if anchor else ""
        return f"[{match['text']}]({site_url}{page_url(other)}{anchor})"

    return references.LINK.sub(absolute, prose)


@cache
def _owners() -> dict:
    """Return {top-level module: its distributions}; reading them all takes a while."""
    return packages_distributions()


def requirements(page: Page, codes: list[str]) -> list[str]:
    """Return the distributions that the cells import, and those a page names."""
    imported = set()
    for code in codes:
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    owners = _owners()
    names = {
        owners[name][0]
        for name in imported - set(sys.stdlib_module_names)
        if name in owners
    } | {"torch", "numpy"}
    pins = [f"{name}=={version(name).split('+')[0]}" for name in sorted(names)]
    return list(dict.fromkeys(pins + list(page.meta.get("packages", []))))
