"""The guide as it stands in git: whole, mirrored, and nothing in it that is built."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs._tools import bank
from docs._tools.execute import Runner
from docs._tools.guide import Guide
from docs._tools.includes import includes
from docs._tools.new import WRITE
from docs._tools.pages import LEVELS, PARTS, each, load
from docs._tools.problems import ROOT
from docs._tools.site import check_all

GUIDE = Guide()
# Helpers that several tests or demonstrations use; they are no page's own.
SHARED = {"snippets/properties/error_budget.py", "snippets/properties/beside.py"}


def tracked() -> list[str]:
    """Return the files that git has, or would add."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def test_no_source_has_a_problem():
    assert [str(problem) for problem in check_all(GUIDE)] == []


def test_every_page_with_code_has_been_run():
    """`make test` runs them under nbmake before the tests; here none may be missing."""
    assert [page.key for page in Runner(GUIDE).stale()] == []


def test_nothing_built_and_nothing_large_is_in_git():
    for name in tracked():
        assert not name.endswith(".ipynb"), f"{name} is built, not kept"
        assert not name.startswith(("site/", "build/")), name
        size = (ROOT / name).stat().st_size
        assert size <= 500_000, f"{name} has {size} bytes"


def test_no_file_names_a_registry_host():
    hosts = re.compile(
        "|".join(["pypi" + r"\.org", "python" + "hosted", "registry" + r"\.npmjs"])
    )
    for name in tracked():
        if not name.endswith((".woff2", ".png")):
            assert not hosts.search((ROOT / name).read_text("utf-8")), name


def snippets() -> list[str]:
    """Return every snippet."""
    return sorted(n for n in tracked() if re.match(r"snippets/.*\.py$", n))


@pytest.mark.parametrize("name", snippets())
def test_every_snippet_has_its_test_and_its_page(name):
    path = Path(name)
    if path.stem.endswith("_seed"):
        path = path.with_name(path.stem.removesuffix("_seed") + ".py")
    test = Path("tests") / path.relative_to("snippets").with_name(f"test_{path.name}")
    assert (ROOT / test).is_file(), f"{name} has no {test}"
    if name in SHARED:
        return
    room = path.relative_to("snippets").with_suffix("").as_posix()
    keys = {room, f"implementations/{room}", room.replace("properties/", "practice/")}
    pages = [page for page in each(load(GUIDE)) if page.key in keys]
    if not pages and path.parts[1] == "applications":  # shared by applications
        pages = [
            page
            for page in each(load(GUIDE))
            if any(
                file == name
                for cell in page.cells
                if "folded" not in cell.tags
                for file, _ in includes(cell)
            )
        ]
    assert {page.language for page in pages} == {"zh", "en"}, f"{name} has no page"
    for page in pages:
        shown = {file for cell in page.cells for file, _ in includes(cell)}
        assert name in shown, f"{page.path} does not show {name}"


def test_no_skeleton_is_left():
    """`make new` writes pages that pass; nobody may leave them as they are."""
    for page in each(load(GUIDE)):
        assert WRITE[page.language] not in page.text, page.path


def test_every_page_with_code_has_a_snippet_of_its_name():
    for page in each(load(GUIDE)):
        part, _, rest = page.key.partition("/")
        if page.kind not in PARTS.values():
            continue
        of = rest if part == "implementations" else page.key
        assert (ROOT / "snippets" / f"{of}.py").is_file(), page.path


def test_the_question_s_evidence_is_the_file_that_it_shows():
    for page in each(load(GUIDE)):
        if page.kind == "question":
            shown = {file for cell in page.cells for file, _ in includes(cell)}
            assert page.meta["evidence"] in shown, page.path


def test_the_level_of_a_theme_s_questions_rises_from_top_to_bottom():
    """A beginner can read on until it gets too deep."""
    pages = {key: pair["zh"] for key, pair in load(Guide()).items() if "zh" in pair}
    for theme in bank.themes(pages):
        levels = [LEVELS.index(question.meta["level"]) for question in theme.questions]
        assert levels == sorted(levels), f"reorder {theme.index.path}"


def test_evidence_asserts_what_it_prints():
    """Evidence of a question, or of the tests it shows, holds at least one assertion."""
    library = Runner(GUIDE).library
    for page in each(load(GUIDE)):
        if page.kind == "question":
            code = "\n".join(library.cell(page, block)[0] for block in page.cells)
            assert re.search(r"^\s*(assert |torch\.testing\.assert_)", code, re.M), (
                page.path
            )
            assert "print(" in code, page.path


def test_snippets_import_only_torch_and_what_a_page_needs():
    allowed = {"torch", "numpy", "matplotlib", "hypothesis", "snippets"}
    applied = {
        *("PIL", "av", "emoji", "resvg_py", "sacrebleu", "safetensors", "scipy"),
        *("skimage", "sklearn", "tokenizers", "tqdm", "zhconv"),
    }
    for name in snippets():
        known = allowed | set(sys.stdlib_module_names)
        if name.startswith("snippets/comparisons/"):
            known |= {"transformers"}
        if name.startswith("snippets/applications/"):
            known |= applied
        for node in ast.walk(ast.parse((ROOT / name).read_text("utf-8"))):
            modules = (
                [
                    *(a.name for a in node.names if isinstance(node, ast.Import)),
                    *([node.module] if isinstance(node, ast.ImportFrom) else []),
                ]
                if isinstance(node, ast.Import | ast.ImportFrom)
                else []
            )
            for module in modules:
                assert module.split(".")[0] in known, f"{name} imports {module}"
