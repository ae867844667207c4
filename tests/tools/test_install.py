"""`make` on a bare machine: each obstacle is one sentence with its remedy."""

import subprocess
import sys

import pytest

from docs._tools import install
from docs._tools.problems import ROOT


def test_an_old_python_is_one_sentence(monkeypatch, tmp_path):
    class Old(tuple):
        __slots__ = ()

    monkeypatch.setattr(install.sys, "version_info", Old((3, 9, 2)))
    monkeypatch.setattr(install.sys, "version", "3.9.2 (default)")
    with pytest.raises(SystemExit, match=r"Python 3\.9\.2 is too old.*PYTHON=python3"):
        install.main(tmp_path / "venv")


def step(output: str, code: int):
    """Return a command that prints and ends so."""
    return (
        sys.executable,
        "-c",
        f"import sys; print({output!r}); sys.exit({code})",
    )


def test_no_network_is_one_sentence():
    with pytest.raises(SystemExit, match=r"there is no network.*connect"):
        install.run(*step("Temporary failure in name resolution", 1), why="x")


def test_a_step_that_fails_says_why_and_what_to_do():
    with pytest.raises(SystemExit, match=r"packages; remove \.venv and try again"):
        install.run(*step("No space left on device", 1), why="packages")


def test_a_step_that_works_says_nothing(capsys):
    install.run(*step("noise", 0), why="x")
    assert capsys.readouterr().out == ""


def test_one_more_group_leaves_its_mark(monkeypatch, tmp_path):
    steps = []
    monkeypatch.setattr(install, "run", lambda *command, why: steps.append(command))
    install.extra(tmp_path, "exercise")
    assert steps[0][-2:] == ("--group", "exercise")
    assert (tmp_path / "extra-exercise").exists()


def test_a_half_made_environment_is_made_anew(monkeypatch, tmp_path, capsys):
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    (venv / "bin" / "python").chmod(0o755)
    steps = []
    monkeypatch.setattr(install, "run", lambda *command, why: steps.append(command))
    monkeypatch.setattr(
        install.Path, "write_text", lambda self, *args: None, raising=True
    )
    install.main(venv)
    assert "half made; making it anew" in capsys.readouterr().out
    assert steps[0][1:3] == ("-m", "venv")
    assert not (venv / "bin").exists()


def test_an_update_keeps_the_time_of_the_whole_install(monkeypatch, tmp_path):
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to("/bin/true")
    (venv / "installed").write_text("51\n")
    monkeypatch.setattr(install, "run", lambda *command, why: None)
    install.main(venv)
    assert (venv / "installed").read_text() == "51\n"


def test_the_mark_of_an_install_is_left_only_when_all_went_well(monkeypatch, tmp_path):
    venv = tmp_path / "venv"

    def fails(*command, why):
        install.fail(why)

    monkeypatch.setattr(install, "run", fails)
    with pytest.raises(SystemExit):
        install.main(venv)
    assert not (venv / "installed").exists()


def test_every_tool_module_says_what_it_is_for():
    for path in sorted((ROOT / "docs/_tools").glob("*.py")):
        assert path.read_text("utf-8").startswith('"""'), path


def test_make_alone_says_what_there_is():
    done = subprocess.run(
        ["make"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for command in ("serve", "test", "site", "budget", "new", "stamp"):
        assert command in done.stdout
