"""Mutation testing of snippets/: which wrong lines would no test notice?

`make mutation` has mutmut change each file of snippets/ place by place and run the
tests that mirror it, prints a table, and ends with 1 if less than 90 % are killed or if
a survivor has no reason in tests/survivors.yml. `make mutation OF=decoding/gqa` looks
at one file. A file that is as it was, with tests as they were, is not run again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
REASONS = ROOT / "tests" / "survivors.yml"
WANTED = 0.9
# mutmut's exit codes: a test failed, or the tests no longer end. 0 is a survivor.
KILLED, TIMED_OUT = {1, 3}, {24, -24, 36, 152, 255}


@dataclass(frozen=True)
class Mutant:
    """One changed line, and how its tests ended (None: not run)."""

    name: str
    exit_code: int | None

    @property
    def killed(self) -> bool:
        """Whether some test noticed."""
        return self.exit_code in KILLED | TIMED_OUT

    @property
    def place(self) -> str:
        """The function, as snippets.room.stem.function or .Class.method."""
        place = self.name.rpartition("__mutmut_")[0]
        module, _, function = place.rpartition(".")
        function = function.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
        return f"{module}.{function}"


def read(folder: Path) -> dict[str, list[Mutant]]:
    """Return {file: its mutants} of what mutmut left in its folder."""
    found = {}
    for path in sorted(folder.rglob("*.py.meta")):
        codes = json.loads(path.read_text("utf-8"))["exit_code_by_key"]
        name = path.relative_to(folder).as_posix().removesuffix(".meta")
        if codes:
            found[name] = [Mutant(key, code) for key, code in codes.items()]
    return found


def change(diff: str) -> str:
    """Return what a diff changes, on one line: `old → new`."""
    lines = diff.splitlines()
    sides = [
        " ".join(x[1:].strip() for x in lines if x[:1] == s and x[:3] != 3 * s)
        for s in "-+"
    ]
    return " → ".join(sides)


def table(found: dict[str, list[Mutant]]) -> tuple[list[str], float]:
    """Return a line a file and the sum, and the share that was killed."""
    lines, total, killed = [], 0, 0
    for name, mutants in found.items():
        dead = sum(one.killed for one in mutants)
        lines.append(
            f"{dead:5} of {len(mutants):4}  {dead / len(mutants):4.0%}  {name}"
        )
        total, killed = total + len(mutants), killed + dead
    share = killed / total if total else 0.0
    return [*lines, f"{killed:5} of {total:4}  {share:.1%} killed"], share


def unexplained(survivors: list[tuple[str, str]], reasons: list[dict]) -> list[str]:
    """Return survivors (place, change) without a reason, and reasons without one.

    A reason whose `in` is * holds everywhere; its `change` is a regular expression.
    """
    everywhere = [re.compile(x["change"]) for x in reasons if x["in"] == "*"]
    known = {(one["in"], one["change"]) for one in reasons if one["in"] != "*"}
    lines = [
        f"no reason: in {place}: {changed}"
        for place, changed in survivors
        if (place, changed) not in known
        and not any(pattern.fullmatch(changed) for pattern in everywhere)
    ]
    gone = sorted(known - set(survivors))
    return lines + [f"killed by now: in {place}: {changed}" for place, changed in gone]


def files(of: list[str]) -> list[Path]:
    """Return the snippets to mutate: all, or those whose path ends so."""
    found = [
        path.relative_to(ROOT)
        for path in sorted((ROOT / "snippets").rglob("*.py"))
        if not path.stem.endswith("_seed")
    ]
    if not of:
        return found
    chosen = [p for p in found if any(str(p.with_suffix("")).endswith(x) for x in of)]
    if not chosen:
        sys.exit(f"mutation: no file of snippets/ ends in {' or '.join(of)}")
    return chosen


def test_of(path: Path) -> Path:
    """Return the test file that mirrors a snippet."""
    room = path.relative_to("snippets").parent
    return Path("tests") / room / f"test_{path.stem}.py"


def prepare(path: Path) -> Path:
    """Make the folder in which mutmut works on one file; empty it if anything changed."""
    folder = ROOT / "build" / "mutation" / path.relative_to("snippets").with_suffix("")
    read = [path, test_of(path), Path("snippets/properties/kit.py")]
    key = hashlib.sha256(b"".join((ROOT / one).read_bytes() for one in read))
    mark = folder / "key"
    if mark.exists() and mark.read_text("utf-8") == key.hexdigest():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("snippets", "tests", "docs"):
        skipped = shutil.ignore_patterns("__pycache__", "site", "tools")
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    text += f'only_mutate = ["{path}"]\n'
    text += f'pytest_add_cli_args_test_selection = ["{test_of(path)}"]\n'
    (folder / "pyproject.toml").write_text(text, "utf-8")
    mark.write_text(key.hexdigest(), "utf-8")
    return folder


def mutate(path: Path) -> tuple[list[Mutant], list[tuple[str, str]]]:
    """Run mutmut on one file; return its mutants, and (place, change) of the survivors.

    Raises RuntimeError with mutmut's last words when it does not get through.
    """
    folder = prepare(path)
    jobs = str(len(os.sched_getaffinity(0)))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", "run", "--max-children", jobs],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    mutants = read(folder / "mutants").get(str(path), [])
    if done.returncode or any(one.exit_code is None for one in mutants):
        tail = done.stdout.replace("\r", "\n").strip().splitlines()[-20:]
        (folder / "key").unlink()
        raise RuntimeError(f"mutmut did not get through {path}:\n" + "\n".join(tail))
    here = os.getcwd()
    os.chdir(folder)
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    alive = [
        (one.place, change(get_diff_for_mutant(one.name, path=str(path))))
        for one in mutants
        if not one.killed
    ]
    os.chdir(here)
    return mutants, alive


def main(of: list[str]) -> int:
    """Mutate file after file, then judge what survived."""
    found, alive, broken = {}, [], False
    for path in files(of):
        try:
            mutants, survivors = mutate(path)
        except RuntimeError as error:
            print(error, flush=True)
            broken = True
            continue
        if mutants:
            found[str(path)] = mutants
            print(table({str(path): mutants})[0][0], flush=True)
        alive += survivors
    lines, share = table(found)
    print(lines[-1])
    reasons = yaml.safe_load(REASONS.read_text("utf-8")) or []
    if of:
        names = {str(p.with_suffix("")).replace("/", ".") for p in files(of)}
        reasons = [
            x for x in reasons if any(x["in"].startswith(n + ".") for n in names)
        ]
    told = unexplained(alive, reasons)
    print("\n".join(told) or "every survivor has a reason")
    return int(broken or share < WANTED or bool(told))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
