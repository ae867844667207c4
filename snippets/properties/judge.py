"""Judge an attempt by properties, on inputs that hypothesis draws and shrinks."""

# --8<-- [start:judge]
from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor


class Broken(AssertionError):
    """A property that does not hold: what happened, in English and in Chinese."""

    def __init__(self, en: str, zh: str) -> None:
        """Keep both sentences; `drawn` is filled with the smallest input."""
        super().__init__(en)
        self.said = {"en": en, "zh": zh}
        self.drawn: dict[str, object] = {}

    def __str__(self) -> str:
        """Show both sentences and the smallest input."""
        return f"{self.said['en']} | {self.said['zh']} [{_named(self.drawn)}]"


class Draw:
    """Draws inputs; hypothesis makes them smaller while the property stays broken."""

    def __init__(self, data: st.DataObject) -> None:
        """Draw from hypothesis; remember what a report will name."""
        self.data, self.named = data, {}
        self.generator = torch.Generator("cpu").manual_seed(0)
        seed = data.draw(st.integers(0, 99))
        self.generator.manual_seed(seed)

    def size(self, name: str, low: int, high: int) -> int:
        """Return an integer from low to high, the smaller the better."""
        self.named[name] = self.data.draw(st.integers(low, high))
        return self.named[name]

    def choice(self, name: str, options: Iterable) -> object:
        """Return one of the options, the earlier the better."""
        self.named[name] = self.data.draw(st.sampled_from(list(options)))
        return self.named[name]

    def normal(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return a tensor of standard normal numbers on the default device."""
        made_any = torch.randn(
            shape, generator=self.generator, dtype=torch.float64, device="cpu"
        )
        return made_any.to(torch.get_default_device(), dtype)

    def mask(self, *shape: int, share: float = 0.6) -> Tensor:
        """Return a boolean tensor in which about `share` of the entries are True."""
        made_any = torch.rand(shape, generator=self.generator, device="cpu") < share
        return made_any.to(torch.get_default_device())


def hold(prop: Callable[[Draw], None], examples: int = 20) -> None:
    """Run `prop(draw)` on drawn inputs; raise its Broken for the smallest that fails.

    Whatever else `prop` raises counts as broken, too: code that crashes is wrong.
    """

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        draw = Draw(data)
        try:
            prop(draw)
        except Broken as broken:
            broken.drawn = dict(draw.named)
            broken.__notes__ = []
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            broken = Broken(f"it raised {what}", f"抛出了 {what}")
            broken.drawn = dict(draw.named)
            raise broken from error

    with contextlib.redirect_stdout(io.StringIO()):  # hypothesis prints what it drew
        run()


def check(en: str, zh: str) -> Callable:
    """Name a check `f(attempt, draw)` in both languages."""

    def name(function: Callable) -> Callable:
        function.title = {"en": en, "zh": zh}
        return function

    return name


class Report:
    """What a judge found: `broken` maps the name of each failed check to its Broken."""

    def __init__(self, checks: list, broken: dict[str, Broken], language: str) -> None:
        """Keep the findings and the language to tell them in."""
        self.checks, self.broken, self.language = checks, broken, language

    def __bool__(self) -> bool:
        """Return whether everything holds."""
        return not self.broken

    def __str__(self) -> str:
        """Show one line a check, with what happened and on which smallest input."""
        return self.told(self.language)

    def told(self, language: str, *, only_broken: bool = False) -> str:
        """Return the report in a language; `only_broken` leaves out what holds."""
        words = {"en": ("smallest input", "hold"), "zh": ("最小输入", "成立")}[language]
        lines = []
        for one in self.checks:
            title, broken = one.title[language], self.broken.get(one.__name__)
            if broken is None:
                lines += [] if only_broken else [f"✓ {title}"]
                continue
            lines += [f"✗ {title}", f"    {broken.said[language]}"]
            if broken.drawn:
                lines.append(f"    {words[0]}: {_named(broken.drawn)}")
        if not only_broken:
            held = len(self.checks) - len(self.broken)
            lines.append(f"{held} / {len(self.checks)} {words[1]}")
        return "\n".join(lines)


def judge(
    attempt: object, checks: list, language: str = "en", examples: int = 20
) -> Report:
    """Run every check on an attempt: a module, a namespace, or `globals()`.

    Returns a report to print. Raises ValueError for a language that is neither
    "en" nor "zh". A check that fails is told, never raised.
    """
    if language not in ("en", "zh"):
        raise ValueError(f"language is {language!r}, expected 'en' or 'zh'")
    attempt = SimpleNamespace(**attempt) if isinstance(attempt, Mapping) else attempt
    broken = {}
    for one in checks:
        try:
            hold(lambda draw, one=one: one(attempt, draw), examples)
        except Broken as found:
            cause = found.__cause__
            if isinstance(cause, AttributeError) and cause.obj is attempt:
                name = cause.name
                found.said = {"en": f"{name} is missing", "zh": f"缺少 {name}"}
            if isinstance(cause, NotImplementedError):
                found.said, found.drawn = (
                    {"en": "not written yet", "zh": "还没有写"},
                    {},
                )
            broken[one.__name__] = found
    return Report(checks, broken, language)


def _named(drawn: Mapping[str, object]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in drawn.items())


# --8<-- [end:judge]


if __name__ == "__main__":
    # --8<-- [start:checks]
    torch.manual_seed(0)

    @check(en="It is sorted", zh="结果有序")
    def in_order(attempt: object, draw: Draw) -> None:
        """Fail when a number is followed by a smaller one."""
        x_N = draw.normal(draw.size("length", 0, 6))
        y_any = attempt.sort(x_N)
        if (y_any[1:] < y_any[:-1]).any():
            raise Broken("a number is followed by a smaller one", "有一个数后面更小")

    @check(en="Nothing is lost", zh="一个也不少")
    def whole(attempt: object, draw: Draw) -> None:
        """Fail when the number of numbers changes."""
        length = draw.size("length", 0, 6)
        came = len(attempt.sort(draw.normal(length)))
        if came != length:
            raise Broken(
                f"{length} numbers became {came}", f"{length} 个数变成 {came} 个"
            )

    # --8<-- [end:checks]

    # --8<-- [start:three-attempts]
    for name, sort in (
        ("right", lambda x_N: torch.sort(x_N).values),
        ("identity", lambda x_N: x_N),
        ("loses the last", lambda x_N: torch.sort(x_N[:-1]).values),
    ):
        print(f"--- {name}")
        print(judge({"sort": sort}, [in_order, whole], language="en"))
    # --8<-- [end:three-attempts]

    # --8<-- [start:chinese]
    report = judge({}, [in_order, whole], language="zh")
    assert not report
    print(report)
    # --8<-- [end:chinese]
