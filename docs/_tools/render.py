"""An executed notebook as Markdown for MkDocs, and the figures it drew."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from posixpath import relpath

import nbformat
from nbconvert import MarkdownExporter
from nbformat import NotebookNode

from docs._tools import hints, practice, references
from docs._tools.exercises import Exercise
from docs._tools.guide import Guide
from docs._tools.includes import Library, includes
from docs._tools.notebooks import code_of
from docs._tools.pages import Block, Page

INK, DARK_INK = "#000000", "#e3e0d8"
PAPER, DARK_PAPER = "#ffffff", "#17191c"
WORDS = {
    "zh": {
        "folded": "折叠的代码：",
        "more": " 等 {} 个文件",
        "borrowed": "这里运行其他页面的代码，笔记本里有全文：",
        "waiting": "本页的代码还没有在这台机器上运行，输出稍后出现。",
    },
    "en": {
        "folded": "Folded code: ",
        "more": " and others, {} files",
        "borrowed": "Code of other pages runs here; the notebook has it in full: ",
        "waiting": "The code of this page has not run here yet; its outputs will appear.",
    },
}
EXPORTER = MarkdownExporter(
    template_name="notebook_template",
    extra_template_basedirs=[str(Path(__file__).parent)],
)


@dataclass
class Rendered:
    """A page's Markdown and the files that belong next to it."""

    markdown: str
    figures: dict[str, bytes] = field(default_factory=dict)
    ran: dict | None = None


def shown_on(pages: Iterable[Page]) -> dict[tuple[str, str], Page]:
    """Return which page explains each section of code, (file, name) → page.

    A practice page also explains what it folds, unless another page shows that. What
    only applications use, the first of them to show it explains.
    """
    shown, folded, applied = {}, {}, {}
    for page in pages:
        practised = page.key.startswith("practice/")
        if page.kind == "application":
            for block in page.cells:
                if "folded" not in block.tags:
                    applied = dict.fromkeys(includes(block), page) | applied
        elif page.kind == "implementation" or practised:
            for block in page.cells:
                if "folded" not in block.tags:
                    shown |= dict.fromkeys(includes(block), page)
                elif practised:
                    folded |= dict.fromkeys(includes(block), page)
    return applied | folded | shown


def render(
    page: Page,
    executed: NotebookNode | None,
    library: Library,
    guide: Guide,
    shown: Mapping[tuple[str, str], Page] | None = None,
    exercise: Exercise | None = None,
) -> Rendered:
    """Return a page as MkDocs shows it; without outputs while it has not run.

    Folded code that another page explains (`shown`, from `shown_on`) becomes a link.
    The page ends with the way to its exercise, if it has one.
    """
    out = Rendered("")
    cells, number = [], 0
    codes = code_of(page, library)
    for block in page.blocks:
        if not block.is_code:
            cells.append(nbformat.v4.new_markdown_cell(_prose(block, page.language)))
            continue
        outputs = executed.cells[number].outputs if executed else []
        code = codes[number]
        number += 1
        if "folded" in block.tags and not outputs:
            link, code, block = _borrowed(page, block, library, shown or {})
            cells += [nbformat.v4.new_markdown_cell(link)] if link else []
        if code:
            cells.append(_code_cell(page, block, code, outputs, out))
    notebook = nbformat.v4.new_notebook(cells=cells)
    body, _ = EXPORTER.from_notebook_node(notebook)
    if page.cells and executed is None:
        body = f"> [!WARNING]\n> {WORDS[page.language]['waiting']}\n\n{body}"
    if executed is not None:
        out.ran = dict(executed.metadata["guide"])
    if exercise is not None:
        body += f"\n\n{practice.invitation(exercise)}\n"
    out.markdown = references.cite(body, guide) + references.source_list(page, guide)
    return out


def _borrowed(
    page: Page, block: Block, library: Library, shown: Mapping
) -> tuple[str, str, Block]:
    """Return a link to the pages that explain a folded cell, and what none explains.

    The latter as code, and as a block of the include lines that are left.
    """
    owners, rest, kept = [], [], []
    for file, name in includes(block):
        owner = shown.get((file, name), page)
        if owner is page:
            rest.append(library.files[file][name].code)
            kept.append(f'--8<-- "{file}:{name}"')
        else:
            owners.append(owner)
    here = page.key.rpartition("/")[0]
    links = [
        f"[{owner.meta['title']}]({relpath(owner.key, here)}.md"
        f"{'#code' if 'code' in references.anchors(owner) else ''})"
        for owner in dict.fromkeys(owners)
    ]
    comma, stop = ("、", "。") if page.language == "zh" else (", ", ".")
    link = WORDS[page.language]["borrowed"] + comma.join(links) + stop
    left = replace(block, lines=tuple(kept))
    return link if links else "", "\n\n\n".join(rest), left


def _prose(block: Block, language: str) -> str:
    text = "\n".join(block.lines)
    if block.language is None:
        return hints.for_site(text, language)
    return f"```{block.language}\n{text}\n```"


def folded_title(files: list[str], words: dict) -> str:
    """Return the line above folded code; it names two files at most."""
    named, more = files[:2], words["more"].format(len(files))
    return words["folded"] + ", ".join(named) + (more if len(files) > 2 else "")


def _code_cell(
    page: Page, block: Block, code: str, outputs: list, out: Rendered
) -> NotebookNode:
    cell = nbformat.v4.new_code_cell(code)
    cell.metadata["tags"] = block.tags
    files = list(dict.fromkeys(file for file, _ in includes(block)))
    cell.metadata["folded_title"] = folded_title(files, WORDS[page.language])
    merged: list[NotebookNode] = []
    for output in map(NotebookNode, outputs):
        if (
            output.output_type == "stream"
            and merged
            and merged[-1].get("name") == output.name
        ):
            merged[-1] = NotebookNode(
                merged[-1] | {"text": merged[-1].text + output.text}
            )
        elif "image/svg+xml" in output.get("data", {}):
            svg = output.data["image/svg+xml"]
            shown = _figure("".join(svg), block.option("alt"), out)
            merged.append(
                nbformat.v4.new_output("display_data", {"text/markdown": shown})
            )
        else:
            merged.append(output)
    cell.outputs = [
        nbformat.v4.new_output("stream", name=o.name, text=_carriage(o.text))
        if o.output_type == "stream"
        else o
        for o in merged
    ]
    return cell


def _carriage(text: str) -> str:
    """Keep of each line what stands after its last carriage return (progress bars)."""
    return "\n".join(line.rstrip("\r").split("\r")[-1] for line in text.split("\n"))


def _figure(svg: str, alt: str, out: Rendered) -> str:
    """Add a figure in a light and a dark version; return the HTML that shows them."""
    number = len(out.figures) // 2 + 1
    svg = svg[svg.index("<svg") :]
    width, height = (
        round(float(re.search(rf'{side}="([\d.]+)pt"', svg)[1]) * 4 / 3)
        for side in ("width", "height")
    )
    images = []
    for scheme, ink, paper in (("light", INK, PAPER), ("dark", DARK_INK, DARK_PAPER)):
        name = f"figure-{number}-{scheme}.svg"
        text = svg.replace("<svg ", f'<svg fill="{ink}" ', 1)
        if scheme == "dark":
            text = text.replace(INK, ink).replace(PAPER, paper)
        out.figures[name] = text.encode()
        images.append(
            f'<img class="only-{scheme}" src="{name}" alt="{html.escape(alt, quote=True)}" '
            f'width="{width}" height="{height}" loading="lazy">'
        )
    return f'<p class="figure">{"".join(images)}</p>'
