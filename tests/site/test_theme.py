"""What the theme ships besides templates."""

from __future__ import annotations

import re

from docs._theme import make_figure
from docs._tools.guide import Guide

THEME = Guide().docs / "_theme"


def test_picture_on_the_home_page_shows_what_its_text_says():
    """24 positions, and the largest weight of each row on the diagonal."""
    weight_TS = make_figure.weights()
    assert weight_TS.argmax(-1).tolist() == list(range(24))
    drawn = re.findall(
        r'cx="(\d+)" cy="(\d+)" r="([\d.]+)"', make_figure.TARGET.read_text("utf-8")
    )
    largest: dict[int, tuple[float, int]] = {}
    for x, y, radius in drawn:
        largest[int(y)] = max(largest.get(int(y), (0.0, 0)), (float(radius), int(x)))
    assert len(largest) == 24
    assert all(x == y for y, (_, x) in largest.items())


def test_picture_in_the_readme_is_light():
    assert (THEME / "readme.png").stat().st_size <= 200_000
