"""The judge of mutation testing, and the list of survivors that it reads."""

import json

import pytest
import yaml

from tests import mutation
from tests.mutation import (
    REASONS,
    ROOT,
    Mutant,
    change,
    files,
    read,
    table,
    unexplained,
)


def test_mutants_are_read_with_file_place_and_fate(tmp_path):
    meta = tmp_path / "snippets" / "room" / "mean.py.meta"
    meta.parent.mkdir(parents=True)
    codes = {
        "snippets.room.mean.x_mean__mutmut_1": 1,
        "snippets.room.mean.xǁLayerǁforward__mutmut_2": 0,
        "snippets.room.mean.x_mean__mutmut_3": 36,
        "snippets.room.mean.x_mean__mutmut_4": None,
    }
    meta.write_text(json.dumps({"exit_code_by_key": codes}))
    found = read(tmp_path)
    (mutants,) = found.values()
    assert list(found) == ["snippets/room/mean.py"]
    assert [one.killed for one in mutants] == [True, False, True, False]
    assert mutants[0].place == "snippets.room.mean.mean"
    assert mutants[1].place == "snippets.room.mean.Layer.forward"


def test_the_table_counts_what_was_killed():
    lines, share = table({"a.py": [Mutant("x", 1), Mutant("y", 0)]})
    assert share == 0.5
    assert lines == ["    1 of    2   50%  a.py", "    1 of    2  50.0% killed"]
    assert table({})[1] == 0.0


def test_a_change_is_told_on_one_line():
    diff = "--- a\n+++ b\n@@ -1 +1 @@\n def f():\n-    return 1\n+    return 2\n"
    assert change(diff) == "return 1 → return 2"


def test_survivors_need_reasons_and_reasons_survivors():
    reasons = [{"in": "m.f", "change": "1 → 2", "why": "equal"}]
    assert unexplained([("m.f", "1 → 2")], reasons) == []
    assert unexplained([("m.f", "1 → 3")], reasons) == [
        "no reason: in m.f: 1 → 3",
        "killed by now: in m.f: 1 → 2",
    ]


def test_a_reason_may_hold_everywhere():
    reasons = [{"in": "*", "change": r"(.*)a=1(.*) → \1a=2\2", "why": "equal"}]
    assert unexplained([("m.f", "f(a=1, 3) → f(a=2, 3)")], reasons) == []
    assert len(unexplained([("m.f", "f(a=1, 3) → f(a=2, 4)")], reasons)) == 1


def test_each_listed_survivor_has_a_reason():
    for one in yaml.safe_load(REASONS.read_text("utf-8")) or []:
        assert set(one) == {"in", "change", "why"}, one
        assert one["in"] == "*" or one["in"].startswith("snippets."), one
        assert " → " in one["change"], one
        assert len(one["why"]) > 10, one


def test_every_file_is_mutated_and_has_the_tests_that_mirror_it():
    names = [str(path) for path in files([])]
    assert "snippets/decoding/gqa.py" in names
    assert not any(name.endswith("_seed.py") for name in names)
    for path in files([]):
        assert (ROOT / mutation.test_of(path)).exists(), path
    assert [str(p) for p in files(["decoding/gqa"])] == ["snippets/decoding/gqa.py"]
    with pytest.raises(SystemExit, match="no file of snippets/ ends in decoding/x"):
        files(["decoding/x"])


def test_the_reasons_that_hold_everywhere_fit_what_mutmut_writes():
    """A parenthesis left unescaped would make a pattern that fits nothing."""
    reasons = yaml.safe_load(REASONS.read_text("utf-8"))
    for old, new in (
        ("nn.Linear(3, 3, bias=False)", "nn.Linear(3, 3, bias=None)"),
        ('einsum("BTK,BSK->BTS", q, k)', 'einsum("btk,bsk->bts", q, k)'),
        ("torch.arange(3, device=q.device)", "torch.arange(3, device=None)"),
        ("torch.arange(3, device=q.device)", "torch.arange(3, )"),
        ("mask.to(q_BHTK.device).tril()", "mask.to(None).tril()"),
    ):
        told = unexplained([("m.f", f"{old} → {new}")], reasons)
        assert not [line for line in told if line.startswith("no reason")], old
        told = unexplained([("m.f", f"{old} → {new} + 1")], reasons)
        assert [line for line in told if line.startswith("no reason")], old
