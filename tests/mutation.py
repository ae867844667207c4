"""Mutation testing of snippets/: which wrong lines would no test notice?

`make mutation` runs mutmut over what `[tool.mutmut]` in pyproject.toml names, prints a
table, and ends with 1 if less than 90 % are killed or if a survivor has no reason in
tests/survivors.yml. `make mutation OF=snippets.decoding.gqa` looks at one file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
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
    """Return survivors (place, change) without a reason, and reasons without one."""
    known = Counter((one["in"], one["change"]) for one in reasons)
    here = Counter(survivors)
    lines = [f"no reason: in {p}: {c}" for p, c in here if (p, c) not in known]
    return lines + [
        f"killed by now: in {p}: {c}" for p, c in known if (p, c) not in here
    ]


def main(of: list[str]) -> int:
    """Run mutmut, then judge what it left."""
    jobs = str(len(os.sched_getaffinity(0)))
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", jobs]
    names = [name if "*" in name else f"{name}.*" for name in of]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    subprocess.run([*command, *names], cwd=ROOT, env=environment, check=True)
    found = read(ROOT / "mutants")
    if of:
        stems = {f"{name.partition('.x')[0].replace('.', '/')}.py" for name in of}
        found = {name: all_ for name, all_ in found.items() if name in stems}
    lines, share = table(found)
    print("\n".join(lines))
    os.chdir(ROOT)
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    alive = [
        (one.place, change(get_diff_for_mutant(one.name, path=name)))
        for name, mutants in found.items()
        for one in mutants
        if not one.killed
    ]
    reasons = yaml.safe_load(REASONS.read_text("utf-8")) or []
    if of:
        seen = {place for place, _ in alive}
        reasons = [one for one in reasons if one["in"] in seen]
    told = unexplained(alive, reasons)
    print("\n".join(told) or "every survivor has a reason")
    return int(share < WANTED or bool(told))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
