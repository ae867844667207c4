"""Data of packages: found by name, checked by digest, each fault one sentence."""

import hashlib
import io
import tarfile
from importlib.metadata import PackagePath

import matplotlib.pyplot as plt
import pytest
from matplotlib import font_manager

from snippets.applications import package_data as page
from snippets.applications.package_data import (
    archived,
    chinese_labels,
    package_file,
    package_files,
)
from tests.running import run_main


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three files; returns the function that lists them."""
    contents = {"data/b.txt": b"two", "data/a.txt": b"one", "other/c.bin": b"three"}
    for name, data in contents.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    found = []
    for name in contents:
        file = PackagePath(name)
        file.dist = type("Dist", (), {"locate_file": lambda self, f: tmp_path / f})()
        found.append(file)
    monkeypatch.setattr(page, "files", lambda name: found)
    return tmp_path


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("step", [1, -1])
def test_files_come_in_the_order_of_their_names(package, monkeypatch, step):
    listed = page.files("toy")[::step]
    monkeypatch.setattr(page, "files", lambda name: listed)
    paths = package_files("toy==1.0", "data/*.txt", digest(b"onetwo"))
    assert [path.name for path in paths] == ["a.txt", "b.txt"]


def test_the_digest_covers_every_file(package):
    (package / "data/b.txt").write_bytes(b"2")
    with pytest.raises(
        ValueError,
        match=rf"data/\*\.txt of toy has SHA-256 {digest(b'one2')}, expected",
    ):
        package_files("toy==1.0", "data/*.txt", digest(b"onetwo"))


def test_one_file_is_one(package):
    path = package_file("toy==1.0", "c.bin", digest(b"three"))
    assert path.read_bytes() == b"three"
    with pytest.raises(ValueError, match=r"data/\*\.txt matches 2 files, expected 1"):
        package_file("toy==1.0", "data/*.txt", digest(b"onetwo"))


@pytest.mark.parametrize("absent", ["pattern", "file", "record", "package"])
def test_what_is_missing_says_what_to_install(package, monkeypatch, absent):
    pattern = "none.txt" if absent == "pattern" else "data/a.txt"
    if absent == "file":
        (package / "data/a.txt").unlink()
    if absent == "record":
        monkeypatch.setattr(page, "files", lambda name: None)
    if absent == "package":
        monkeypatch.undo()
    with pytest.raises(
        FileNotFoundError,
        match=rf"{pattern} of no-toy==1\.0 .*run pip install --no-deps no-toy==1\.0$",
    ):
        package_file("no-toy==1.0", pattern, digest(b"one"))


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A source archive in the current folder with one member."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page.sys, "prefix", str(tmp_path / "venv"))
    path = tmp_path / "toy-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("toy-1.0/text.txt")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"words"))
    return path


def test_a_member_of_the_archive_is_read(archive):
    assert archived("toy==1.0", "toy-1.0/text.txt", digest(b"words")) == b"words"


def test_the_archive_may_stand_beside_the_environment(archive):
    folder = archive.parent / "venv" / "sdist"
    folder.mkdir(parents=True)
    archive.rename(folder / archive.name)
    assert archived("toy==1.0", "toy-1.0/text.txt", digest(b"words")) == b"words"


def test_another_member_is_refused(archive):
    with pytest.raises(
        ValueError,
        match=r"text\.txt of toy-1\.0\.tar\.gz has SHA-256 \w{64}, expected 0",
    ):
        archived("toy==1.0", "toy-1.0/text.txt", "0" * 64)
    with pytest.raises(FileNotFoundError, match=r"toy-1\.0\.tar\.gz has no member x"):
        archived("toy==1.0", "x", "0" * 64)


def test_a_missing_archive_says_what_to_download(archive):
    archive.unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"toy-1\.0\.tar\.gz is not here: run pip download --no-deps --no-binary "
        r":all: toy==1\.0$",
    ):
        archived("toy==1.0", "toy-1.0/text.txt", "0" * 64)


@pytest.mark.parametrize("part", [0, 10, 90])
def test_a_broken_archive_is_one_sentence(archive, part):
    archive.write_bytes(archive.read_bytes()[:part] or b"no archive")
    with pytest.raises(ValueError, match=r"toy-1\.0\.tar\.gz cannot be read .* anew$"):
        archived("toy==1.0", "toy-1.0/text.txt", digest(b"words"))


def test_figures_get_a_font_with_chinese(monkeypatch):
    monkeypatch.setitem(plt.rcParams, "font.family", ["DejaVu Sans"])
    chinese_labels()
    chinese_labels()
    assert plt.rcParams["font.family"] == ["DejaVu Sans", "Noto Sans SC"]
    found = font_manager.findfont("Noto Sans SC", fallback_to_default=False)
    drawn = font_manager.get_font(found).get_charmap()
    assert all(ord(letter) in drawn for letter in "注意力机制骨直")


def test_demonstration():
    result = run_main("snippets.applications.package_data")
    assert result.output == "membrane.dat: 48000 bytes, as expected\n"
