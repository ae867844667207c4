"""`make new` gives a newcomer files that pass, and refuses what would break."""

import pytest

from docs._tools.execute import Runner
from docs._tools.new import make
from docs._tools.pages import load
from docs._tools.problems import Stop
from docs._tools.site import check_all


def test_a_new_implementation_passes_the_check_and_runs(fixture):
    make(fixture.guide, "implementation", "room/median")
    assert [str(p) for p in check_all(fixture.guide)] == []
    assert (fixture.guide.root / "tests/room/test_median.py").is_file()
    assert Runner(fixture.guide).run() == []
    assert load(fixture.guide)["implementations/room/index"]["en"].meta["order"] == [
        "mean",
        "median",
    ]


def test_a_new_question_and_a_new_application(fixture):
    for part, child in (("questions", "basics"), ("questions/basics", None)):
        for language in ("zh", "en"):
            path = fixture.path(language, f"{part}/index")
            path.parent.mkdir(parents=True, exist_ok=True)
            mark = "translation: {of: zh, at: stamp-me}\n" if language == "en" else ""
            order = f"order: [{child}]\n" if child else ""
            path.write_text(
                f"---\nid: {part.replace('/', '-')}\ntitle: t\ndescription: d\n"
                f"{order}{mark}---\n\nwords\n",
                "utf-8",
            )
    for language in ("zh", "en"):
        path = fixture.path(language, "applications/index")
        path.parent.mkdir(parents=True, exist_ok=True)
        mark = "translation: {of: zh, at: stamp-me}\n" if language == "en" else ""
        path.write_text(
            f"---\nid: applications\ntitle: t\ndescription: d\n{mark}---\n\nwords\n",
            "utf-8",
        )
        fixture.edit(
            fixture.path(language, "index"),
            "[implementations]",
            "[implementations, questions, applications]",
        )
    from docs._tools.parity import stamp_keys

    stamp_keys(fixture.guide, ["index"])
    stamp_keys(fixture.guide, [])
    make(fixture.guide, "question", "basics/why_scale")
    make(fixture.guide, "application", "word_count")
    assert [str(p) for p in check_all(fixture.guide)] == []


@pytest.mark.parametrize(
    ("kind", "stem", "says"),
    [
        (
            "implementation",
            "nowhere/median",
            "there is no folder implementations/nowhere",
        ),
        ("implementation", "room/Median", "lower-case English words"),
        ("implementation", "median", "write folder/stem"),
        ("implementation", "room/mean", "'mean' is taken"),
    ],
)
def test_what_would_break_is_refused(fixture, kind, stem, says):
    before = sorted(fixture.guide.root.rglob("*"))
    with pytest.raises(Stop, match=says):
        make(fixture.guide, kind, stem)
    assert sorted(fixture.guide.root.rglob("*")) == before
