"""Downloaded notebooks run alone: in an empty folder, without the repository."""

from __future__ import annotations

import os
import urllib.request

import nbformat
import pytest
from nbclient import NotebookClient

from tests.site.conftest import address

# Small pages that run in seconds, one per language.
NOTEBOOKS = [
    ("zh", "questions/basics/kinds_of_attention"),
    ("en", "questions/multimodal/what_is_multimodal_attention"),
]


@pytest.mark.parametrize(("language", "key"), NOTEBOOKS)
def test_download_runs_alone(language, key, base, tmp_path, monkeypatch):
    stem = key.split("/")[-1]
    with urllib.request.urlopen(
        f"{base}{address(key, language)}{stem}.ipynb"
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
