"""Write what readers download: notebooks of pages, exercises, bugs to find; Anki decks."""

from __future__ import annotations

import zipfile
from pathlib import Path

import nbformat

from docs._tools import anki, exercises, notebooks, practice
from docs._tools.guide import LANGUAGES, Guide
from docs._tools.includes import Library
from docs._tools.pages import load


def write(
    guide: Guide, library: Library, site_url: str, folder: Path, language: str
) -> dict[str, Path]:
    """Write a language's notebooks below `folder`, one zip with all, and its Anki decks.

    Returns {path below the language's site: file}; a page's own notebook has the key
    of the page and `.ipynb`.
    """
    pages = load(guide)
    made = {
        f"{key}.ipynb": notebooks.to_download(pair[language], library, guide, site_url)
        for key, pair in pages.items()
        if language in pair and pair[language].cells and "title" in pair[language].meta
    }
    for exercise in exercises.all_of(pages, library, guide, language):
        if exercise.whole_there:
            made |= practice.files(exercise, site_url)
    written = {}
    for name, notebook in sorted(made.items()):
        path = folder / language / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = nbformat.writes(notebook)
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
        written[name] = path
    archive = folder / f"attention-guide-{language}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, path in written.items():
            info = zipfile.ZipInfo(f"attention-guide-{language}/{name}")
            info.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(info, path.read_bytes())
    alone = {key: pair[language] for key, pair in pages.items() if language in pair}
    if "questions/index" in alone:
        anki.write(guide, library, alone, site_url, archive.with_suffix(".apkg"))
    return written


def write_all(guide: Guide, folder: Path) -> int:
    """Write all downloadable notebooks of both languages; return how many."""
    library, site_url = Library.read(guide), notebooks.site_address()
    return sum(
        len(write(guide, library, site_url, folder, language)) for language in LANGUAGES
    )
