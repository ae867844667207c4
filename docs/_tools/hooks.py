"""MkDocs hooks: put executed pages, formulas, navigation and both languages on the site.

The five moves that make MkDocs render what mkdocs-jupyter publishes are `on_files`
(early and late), `on_pre_page` and `on_page_markdown`; docs/adr/0005 says why.
"""

from __future__ import annotations

from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.plugins import CombinedEvent, event_priority
from mkdocs.structure.files import File, InclusionLevel
from mkdocs.structure.pages import Page as MkDocsPage

from docs._tools import (
    bank,
    downloads,
    dress,
    exercises,
    glossary_page,
    maths,
    practice,
    render,
    results,
)
from docs._tools.execute import Runner
from docs._tools.guide import Guide
from docs._tools.includes import Library
from docs._tools.pages import Page, load

STATE: dict = {}


@event_priority(100)
def on_config(config):
    """Read the guide once per build."""
    guide = Guide(Path(config["config_file_path"]).parent)
    runner = Runner(guide)
    language = config["theme"]["language"]
    pages = {
        key: pair[language]
        for key, pair in load(guide).items()
        if language in pair and {"title", "description"} <= set(pair[language].meta)
    }
    site_url = config["extra"]["root_url"].rstrip("/") + "/"
    written = downloads.write(
        guide, runner.library, site_url, guide.build / "downloads", language
    )
    config["site_url"] = site_url if language == "zh" else f"{site_url}{language}/"
    STATE.update(
        guide=guide,
        runner=runner,
        language=language,
        pages=pages,
        gpu=config["extra"].get("gpu") or {},
        rendered={},
        run=runner.pages(),
        downloads=written,
        exercises=exercises_in_order(guide, runner.library, language),
    )
    config["nav"] = navigation(pages)
    return config


def exercises_in_order(guide: Guide, library: Library, language: str) -> dict:
    """Return {key of the page: exercise}, in the order in which pages are best read."""
    pages = load(guide)
    found = {
        one.page.key: one for one in exercises.all_of(pages, library, guide, language)
    }
    order = dress.reading_order(
        {key: pair[language] for key, pair in pages.items() if language in pair},
        "implementations",
    )
    ordered = [key for key in order if key in found]
    ordered += [key for key in found if key not in ordered]
    return {key: found[key] for key in ordered if found[key].whole_there}


def navigation(pages: dict[str, Page], folder: str = "") -> list:
    """Return MkDocs' nav from the `order:` of each folder's index page."""
    if f"{folder}index" not in pages:
        raise PluginError(
            f"docs/*/{folder}index.md is missing or its front matter is broken"
        )
    nav: list = [f"{folder}index.md"]
    for name in pages[f"{folder}index"].meta.get("order", []):
        if f"{folder}{name}/index" in pages:  # what is missing, `check` tells
            title = pages[f"{folder}{name}/index"].meta["title"]
            nav.append({title: navigation(pages, f"{folder}{name}/")})
        elif f"{folder}{name}" in pages:
            nav.append({pages[f"{folder}{name}"].meta["title"]: f"{folder}{name}.md"})
    return nav


@event_priority(100)
def _pages_as_notebooks(files, config):
    explained = render.shown_on(STATE["pages"].values())
    for key, page in STATE["pages"].items():
        if not page.cells:
            continue
        runner: Runner = STATE["runner"]
        made = render.render(
            page,
            runner.cached(STATE["run"][key]),
            runner.library,
            STATE["guide"],
            explained,
            STATE["exercises"].get(key),
        )
        STATE["rendered"][key] = made
        files.remove(files.get_file_from_path(f"{key}.md"))
        notebook = STATE["downloads"][f"{key}.ipynb"]
        files.append(File.generated(config, f"{key}.md", abs_src_path=str(notebook)))
        for name, content in made.figures.items():
            files.append(File.generated(config, f"{key}/{name}", content=content))
    for ending in ("zip", "apkg"):
        name = f"attention-guide-{STATE['language']}.{ending}"
        path = STATE["guide"].build / "downloads" / name
        if path.exists():
            files.append(File.generated(config, name, abs_src_path=str(path)))
    for theme in bank.themes(STATE["pages"]):
        text = bank.printable(theme, STATE["guide"], config["extra"]["root_url"])
        name = f"questions/{theme.room}/print.md"
        level = InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, name, content=text, inclusion=level))
        files.get_file_from_path(name).edit_uri = None
    theme = STATE["guide"].docs / "_theme" / "assets"
    for path in sorted(theme.rglob("*")) if theme.exists() else []:
        if path.is_file():
            name = f"assets/{path.relative_to(theme).as_posix()}"
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


@event_priority(-100)
def _source_paths(files, config):
    for file in [file for file in files if dress.unused(file.src_uri)]:
        files.remove(file)
    # Exercises come after mkdocs-jupyter has looked: they are files, not pages.
    for exercise in STATE["exercises"].values():
        for name in practice.addresses(exercise):
            path = str(STATE["downloads"][name])
            files.append(File.generated(config, name, abs_src_path=path))
    for file in files:
        if hasattr(file, "file"):  # mkdocs-jupyter's wrapper
            file.abs_src_path = file.file.abs_src_path
            file.edit_uri = file.src_uri
    return files


on_files = CombinedEvent(_pages_as_notebooks, _source_paths)


@event_priority(-100)
def on_pre_page(page, config, files):
    """Give the page back MkDocs' own way of rendering."""
    page.__dict__.pop("render", None)
    assert page.render.__func__ is MkDocsPage.render
    return page


@event_priority(100)
def on_page_markdown(markdown, page, config, files):
    """Return the executed page as Markdown, with its front matter as meta."""
    key = page.file.src_uri.removesuffix(".md")
    source: Page | None = STATE["pages"].get(key)
    if source is None:  # its front matter is broken: `make serve` shows it all the same
        return markdown
    guide: Guide = STATE["guide"]
    page.meta = dict(source.meta)
    if "tags" in page.meta:
        page.meta["tags"] = [
            guide.tags[tag][source.language]
            for tag in page.meta["tags"]
            if tag in guide.tags
        ]
    if "level" in page.meta:
        names = bank.WORDS[source.language]["levels"]
        page.meta["level"] = names.get(page.meta["level"], page.meta["level"])
    page.meta["search"] = dress.search_weight(source) | page.meta.get("search", {})
    page.meta["guide"] = {
        "stale": (source.meta.get("translation") or {}).get("stale", False),
        "kind": source.kind,
        "edit": f"docs/{source.language}/{page.file.src_uri}",
    }
    if key in STATE["rendered"]:
        made = STATE["rendered"][key]
        page.meta["guide"] |= {
            "ran": made.ran,
            "notebook": f"{key.split('/')[-1]}.ipynb",
            "gpu": STATE["gpu"].get(key),
            "notebook_path": f"{source.language}/{key}.ipynb",
        }
        return made.markdown
    if source.meta.get("id") == "glossary":
        return source.body + glossary_page.table(guide, source.language)
    if source.meta.get("id") in bank.LISTS:
        made = bank.LISTS[source.meta["id"]](source, STATE["pages"], guide)
        if source.meta["id"] == "all_questions" and config["extra"].get("pdf"):
            made += bank.pdf_link(source.language)
        return source.body + made
    if source.kind == "index" and source.key.startswith("questions/"):
        return source.body + bank.of_theme(source, STATE["pages"])
    if source.meta.get("id") in practice.TABLES:
        return source.body + practice.table(source, list(STATE["exercises"].values()))
    made = render.render(source, None, STATE["runner"].library, guide).markdown
    made, problems = results.fill(
        source,
        made,
        lambda stem: STATE["runner"].cached(STATE["run"][f"applications/{stem}"]),
    )
    if problems:
        raise PluginError("\n".join(map(str, problems)))
    return made


def on_page_content(html, page, config, files):
    """Render formulas, lighten code."""
    return dress.content(maths.replace(html), STATE["language"])


def on_page_context(context, page, config, nav):
    """Give the home page its two ways in: pages in reading order."""
    if page.is_homepage:
        by_key = {p.file.src_uri.removesuffix(".md"): p for p in nav.pages}
        context["ways"] = {
            part: [
                by_key[key]
                for key in dress.reading_order(STATE["pages"], part)
                if key in by_key
            ]
            for part in ("questions", "implementations")
        }
    return context


def on_post_page(output, page, config):
    """Take out blank lines and indents."""
    return dress.page(output)


def on_post_build(config):
    """Lighten the search index, which the search plugin has written by now."""
    index = Path(config["site_dir"]) / "search" / "search_index.json"
    pages = load(STATE["guide"])
    index.write_text(
        dress.search_index(index.read_text("utf-8"), pages, STATE["language"]), "utf-8"
    )
