"""The facts that the page on bounding scores states."""

import re

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def result():
    """Run the evidence."""
    return run_main("snippets.questions.softmax.bounding_scores")


def test_plain_scores_grow_and_the_others_do_not(result):
    """About 5 to about 1300 without a bound, 50 with the cap, unchanged with norms."""
    largest = result.names["largest"]
    assert largest["plain", 1] == pytest.approx(5, abs=0.3)
    assert largest["plain", 16] == pytest.approx(1300, rel=0.05)
    assert largest["cap 50", 16] <= 50
    assert largest["QK-norm", 16] == pytest.approx(largest["QK-norm", 1], rel=1e-4)


def test_the_cap_sharpens_first_and_ties_later(result):
    """The largest weight is about 0.81 at 4 times the length and 0.03 at 16 times."""
    top = result.names["top"]
    assert top["cap 50", 4] == pytest.approx(0.81, abs=0.03)
    assert top["cap 50", 16] == pytest.approx(0.03, abs=0.01)


def test_the_bound_is_attained_and_sharp(result):
    """Scores reach 8, and 0.999 of the weight is possible."""
    assert "scores within ±8.00" in result.output
    assert float(re.search(r"still get (\S+)", result.output)[1]) > 0.999


def test_the_gradient_is_orthogonal_after_the_norm(result):
    """Plain gradients are not orthogonal to the query, normalized ones are."""
    plain, normed = re.findall(r"gradient and query (\S+)", result.output)
    assert abs(float(plain)) > 0.01
    assert float(normed) == 0
