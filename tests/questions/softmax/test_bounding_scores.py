"""The facts that the page on bounding scores states."""

import re

import pytest


def test_plain_scores_grow_and_the_others_do_not(evidence):
    """About 5 to about 1300 without a bound, 50 with the cap, unchanged with norms."""
    largest = evidence.names["largest"]
    assert largest["plain", 1] == pytest.approx(5, abs=0.3)
    assert largest["plain", 16] == pytest.approx(1300, rel=0.05)
    assert largest["cap 50", 16] <= 50
    assert largest["QK-norm", 16] == pytest.approx(largest["QK-norm", 1], rel=1e-4)


def test_the_cap_sharpens_first_and_ties_later(evidence):
    """The largest weight is about 0.81 at 4 times the length and 0.03 at 16 times."""
    top = evidence.names["top"]
    assert top["cap 50", 4] == pytest.approx(0.81, abs=0.03)
    assert top["cap 50", 16] == pytest.approx(0.03, abs=0.01)


def test_the_bound_is_attained_and_sharp(evidence):
    """Scores reach 8, and 0.999 of the weight is possible."""
    assert "scores within ±8.00" in evidence.output
    assert float(re.search(r"still get (\S+)", evidence.output)[1]) > 0.999


def test_the_gradient_is_orthogonal_after_the_norm(evidence):
    """Plain gradients are not orthogonal to the query, normalized ones are."""
    plain, normed = re.findall(r"gradient and query (\S+)", evidence.output)
    assert abs(float(plain)) > 0.01
    assert float(normed) == 0
