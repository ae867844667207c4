"""Sharpness at the start, by size, for three scores."""

import pytest


def test_the_unscaled_dot_product_sharpens_with_size(evidence):
    """From about 0.31 to about 0.92."""
    weights = [row["dot"] for row in evidence.names["table"].values()]
    assert weights == sorted(weights)
    assert (weights[0], weights[-1]) == pytest.approx((0.31, 0.92), abs=0.03)


@pytest.mark.parametrize("name", ["scaled dot", "additive"])
def test_the_others_do_not(evidence, name):
    """Scaled dot products stay near 0.1, additive scores near uniform."""
    weights = [row[name] for row in evidence.names["table"].values()]
    low, high = {"scaled dot": (0.08, 0.14), "additive": (0.016, 0.05)}[name]
    assert low < min(weights) <= max(weights) < high


def test_additive_scores_are_bounded(evidence):
    """A hundredfold input stays within the bound; dot products grow by its square."""
    additive, dot = zip(*evidence.names["grown"].values(), strict=True)
    assert max(additive) <= evidence.names["bound"] == pytest.approx(3.94, abs=0.01)
    assert dot[2] / dot[0] == pytest.approx(1e4, rel=1e-3)
