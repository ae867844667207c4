"""The judge: smallest inputs, both languages, and no way past it."""

import types

import pytest
import torch

from snippets.properties.judge import Broken, Draw, Report, check, hold, judge
from tests.running import run_main


def broken_from(prop, **options) -> Broken:
    """Return the Broken that holding a property raises."""
    with pytest.raises(Broken) as found:
        hold(prop, **options)
    return found.value


def test_the_smallest_failing_input_is_told():
    def small(draw: Draw) -> None:
        a, b = draw.size("a", 0, 50), draw.choice("b", ["x", "y", "z"])
        if a >= 7 and b != "x":
            raise Broken("too large", "太大")

    broken = broken_from(small, examples=200)
    assert broken.drawn == {"a": 7, "b": "y"}
    assert str(broken) == "too large | 太大 [a = 7, b = y]"


def test_what_holds_says_nothing(capsys):
    hold(lambda draw: draw.size("a", 0, 5))
    assert capsys.readouterr().out == ""


def test_sizes_stay_within_their_bounds():
    seen = set()
    hold(lambda draw: seen.add(draw.size("a", 2, 4)), examples=60)
    assert seen == {2, 3, 4}


def test_inputs_are_the_same_on_every_run():
    runs = [[], []]
    for run in runs:
        hold(lambda draw, run=run: run.append(draw.normal(2, 3)), examples=3)
    for one, other in zip(*runs, strict=True):
        assert one.equal(other)
    assert not runs[0][0].equal(runs[0][1])


def test_tensors_have_the_dtype_and_share_asked_for():
    def look(draw: Draw) -> None:
        assert draw.normal(3, 4).dtype == torch.float64
        assert draw.normal(3, dtype=torch.bfloat16).dtype == torch.bfloat16
        mask = draw.mask(100, 100)
        assert mask.dtype == torch.bool
        assert 0.5 < mask.float().mean() < 0.7
        assert draw.mask(100, 100, share=0.1).float().mean() < 0.2
        x = draw.normal(10_000)
        assert abs(x.mean()) < 0.1
        assert 0.9 < x.std() < 1.1

    hold(look, examples=5)


def test_code_that_crashes_is_wrong():
    broken = broken_from(lambda draw: 1 // draw.size("a", 0, 3))
    assert broken.said["en"].startswith("it raised ZeroDivisionError: ")
    assert broken.said["zh"].startswith("抛出了 ZeroDivisionError: ")
    assert broken.drawn == {"a": 0}
    assert isinstance(broken.__cause__, ZeroDivisionError)


@check(en="Even", zh="偶数")
def even(attempt, draw):
    if attempt.f() % 2:
        raise Broken("it is odd", "是奇数")


@check(en="Small", zh="小")
def small(attempt, draw):
    if attempt.f() > draw.size("limit", 5, 9):
        raise Broken("it is large", "太大")


def test_a_report_in_both_languages():
    attempt = types.SimpleNamespace(f=lambda: 11)
    report = judge(attempt, [even, small])
    assert not report
    assert list(report.broken) == ["even", "small"]
    assert str(report) == (
        "✗ Even\n    it is odd\n✗ Small\n    it is large\n"
        "    smallest input: limit = 5\n0 / 2 hold"
    )
    assert str(judge(attempt, [even, small], language="zh")) == (
        "✗ 偶数\n    是奇数\n✗ 小\n    太大\n    最小输入: limit = 5\n0 / 2 成立"
    )


def test_a_report_may_leave_out_what_holds():
    report = judge({"f": lambda: 7}, [even, small], examples=1)
    assert report.told("en") == (
        "✗ Even\n    it is odd\n✗ Small\n    it is large\n"
        "    smallest input: limit = 5\n0 / 2 hold"
    )
    report = judge({"f": lambda: 3}, [even, small])
    assert report.told("zh", only_broken=True) == "✗ 偶数\n    是奇数"
    assert report.told("zh") == "✗ 偶数\n    是奇数\n✓ 小\n1 / 2 成立"


def test_what_holds_is_true():
    report = judge(types.SimpleNamespace(f=lambda: 2), [even, small])
    assert report
    assert isinstance(report, Report)
    assert report.broken == {}
    assert str(report) == "✓ Even\n✓ Small\n2 / 2 hold"


def test_what_is_not_written_or_missing_is_named():
    def f():
        raise NotImplementedError

    report = judge({"f": f}, [even, small], "zh")
    assert report.told("zh").count("还没有写") == 2
    assert report.told("en").count("not written yet") == 2
    assert "limit" not in str(report)
    report = judge({}, [even])
    assert "f is missing" in report.told("en")
    assert "缺少 f" in report.told("zh")


def test_an_attribute_error_inside_the_code_is_no_missing_name():
    report = judge({"f": lambda: None.shape}, [even])
    assert "it raised AttributeError" in str(report)
    assert "missing" not in str(report)


def test_an_unknown_language_is_refused():
    with pytest.raises(ValueError, match=r"^language is 'fr', expected 'en' or 'zh'$"):
        judge({}, [], language="fr")


def test_demonstration():
    out = run_main("snippets.properties.judge").output
    right, identity, loses, chinese = (
        out.split("--- ")[1],
        out.split("--- ")[2],
        out.split("--- ")[3].split("0 / 2")[0],
        out,
    )
    assert "2 / 2 hold" in right
    assert "✗ It is sorted" in identity
    assert "smallest input: length = 2" in identity
    assert "1 numbers became 0" in loses
    assert "缺少 sort" in chinese
