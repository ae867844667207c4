"""What runs, what is kept, and what stops: cells under nbmake."""

import nbformat
import pytest

from docs._tools.execute import Runner
from docs._tools.problems import Stop
from tests.tools.conftest import KEY, told

DEMO = 'print("mean", mean(torch.tensor([[1.0], [3.0]])).item())'
CELL = '```python\n--8<-- "snippets/room/mean.py:demo"'
RAISING = CELL.replace("python", 'python tags=["raises-exception"] raises="ValueError"')


def line_of(path, text):
    return path.read_text("utf-8").splitlines().index(text) + 1


def test_a_good_page_runs_once_and_is_kept(fixture):
    runner = Runner(fixture.guide)
    assert runner.run() == []
    kept = nbformat.read(runner.path(KEY), 4)
    printed = [o.text for cell in kept.cells for o in cell.outputs]
    assert printed == ["mean 2.0\n", "it is the mean\n"]
    assert kept.metadata["guide"]["device"] == "CPU"
    before = runner.path(KEY).stat().st_mtime_ns
    assert Runner(fixture.guide).run() == []
    assert runner.path(KEY).stat().st_mtime_ns == before


def test_only_an_edit_of_code_runs_a_page_again(fixture):
    assert Runner(fixture.guide).run() == []
    fixture.edit_both("{ #cost }\n", "{ #cost }\n\nmore\n")
    assert Runner(fixture.guide).stale() == []
    fixture.edit(fixture.snippet, "[3.0]", "[5.0]")
    assert [page.key for page in Runner(fixture.guide).stale()] == [KEY]


def test_a_cell_that_raises(fixture):
    fixture.edit(fixture.snippet, DEMO, 'raise KeyError("lost")')
    (problem,) = Runner(fixture.guide).run()
    assert "KeyError: 'lost'" in problem.what
    assert (
        problem.line
        == line_of(fixture.path("zh"), '--8<-- "snippets/room/mean.py:demo"') - 1
    )
    assert not Runner(fixture.guide).path(KEY).exists()


def test_a_cell_past_its_time_limit(fixture):
    fixture.edit(fixture.snippet, DEMO, "import time; time.sleep(60)")
    runner = Runner(fixture.guide)
    page = runner.pages()[KEY]
    page.meta["time_limit"] = 10
    (problem,) = runner.run([page])
    assert "longer than 10 s" in problem.what
    assert (
        problem.line
        == line_of(fixture.path("zh"), '--8<-- "snippets/room/mean.py:demo"') - 1
    )


def test_a_kernel_that_dies(fixture):
    fixture.edit(fixture.snippet, DEMO, "import os; os._exit(1)")
    (problem,) = Runner(fixture.guide).run()
    assert "kernel" in problem.what
    assert "died" in problem.what
    assert (
        problem.line
        == line_of(fixture.path("zh"), '--8<-- "snippets/room/mean.py:demo"') - 1
    )


def test_an_expected_exception_that_comes(fixture):
    fixture.edit_both(CELL, RAISING)
    fixture.edit(fixture.snippet, DEMO, 'raise ValueError("as promised")')
    assert Runner(fixture.guide).run() == []


def test_an_expected_exception_that_does_not_come(fixture):
    fixture.edit_both(CELL, RAISING)
    told(Runner(fixture.guide).run(), "ValueError was expected and did not come")


def test_another_exception_than_expected(fixture):
    fixture.edit_both(CELL, RAISING)
    fixture.edit(fixture.snippet, DEMO, 'raise KeyError("lost")')
    told(Runner(fixture.guide).run(), "KeyError", "expected ValueError")


def test_a_figure_without_alt_text(fixture):
    fixture.edit(
        fixture.snippet,
        DEMO,
        "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()",
    )
    told(Runner(fixture.guide).run(), "draws 1 figures and has 0 alt texts")


def test_an_alt_text_without_figure(fixture):
    fixture.edit_both(CELL, CELL.replace("python", 'python alt="a line"'))
    told(Runner(fixture.guide).run(), "draws 0 figures and has 1 alt texts")


def test_cells_cannot_import_the_repository(fixture):
    fixture.edit(fixture.snippet, DEMO, "import snippets")
    told(Runner(fixture.guide).run(), "ModuleNotFoundError")


def test_a_kernel_that_does_not_start_is_one_sentence(fixture, tmp_path, monkeypatch):
    spec = tmp_path / "jupyter/kernels/python3/kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(
        '{"argv": ["false", "{connection_file}"], "display_name": "broken", '
        '"language": "python"}'
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    with pytest.raises(Stop, match=r"does not start\. Remove \.venv"):
        Runner(fixture.guide).run()


def test_a_broken_cache_file_is_made_again(fixture):
    runner = Runner(fixture.guide)
    assert runner.run() == []
    runner.path(KEY).write_text("{", "utf-8")
    assert [page.key for page in Runner(fixture.guide).stale()] == [KEY]


@pytest.mark.skipif(
    __import__("torch").cuda.is_available(), reason="there is a CUDA device"
)
def test_a_device_that_is_not_there_is_one_sentence(fixture):
    with pytest.raises(Stop, match="no CUDA device"):
        Runner(fixture.guide, "cuda").run()
