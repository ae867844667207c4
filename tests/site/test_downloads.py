"""Downloaded notebooks run alone: in an empty folder, without the repository."""

from __future__ import annotations

import os
import urllib.request

import nbformat
import pytest
from nbclient import NotebookClient

from tests.site.conftest import address

# Small pages that run in seconds, an exercise as it is, and a bug to find.
NOTEBOOKS = [
    ("zh", "questions/types/kinds_of_attention", "kinds_of_attention", ""),
    (
        "en",
        "questions/multimodal/what_is_multimodal_attention",
        "what_is_multimodal_attention",
        "",
    ),
    ("zh", "implementations/decoding/gqa", "gqa_exercise", "还没有写"),
    ("en", "practice/find_the_bug", "multi_head_1", "✗"),
]


@pytest.mark.parametrize(("language", "key", "name", "says"), NOTEBOOKS)
def test_download_runs_alone(language, key, name, says, base, tmp_path, monkeypatch):
    with urllib.request.urlopen(
        f"{base}{address(key, language)}{name}.ipynb"
    ) as answer:
        notebook = nbformat.reads(answer.read().decode(), as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    for name in ("PYTHONPATH", "PYTHONSTARTUP", "IPYTHONDIR", "JUPYTER_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = tmp_path / "alone"
    alone.mkdir()
    client = NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(alone)}}
    )
    client.execute(cwd=str(alone), env=dict(os.environ))
    printed = [cell for cell in notebook.cells if cell.get("outputs")]
    assert printed, "the notebook ran and printed nothing"
    assert says in str([cell.outputs for cell in printed])
