"""Norm before or after each branch."""

import math

import pytest


def test_after_the_last_gradient_does_not_depend_on_depth(evidence):
    """About 0.35 at 6, 12 and 24 layers."""
    last = evidence.names["last"]
    for layers in (6, 12, 24):
        assert last["after", layers] == pytest.approx(0.35, abs=0.04)


def test_before_it_falls_with_the_root_of_the_depth(evidence):
    """Times √L it is about 0.5."""
    last = evidence.names["last"]
    for layers in (6, 12, 24):
        assert last["before", layers] * math.sqrt(layers) == pytest.approx(
            0.5, abs=0.04
        )


def test_the_stream_grows_only_where_it_is_not_normalized(evidence):
    """After: size 1. Before: 1.9, 2.8, 3.9."""
    stream = evidence.names["stream"]
    for layers, size in ((6, 1.9), (12, 2.8), (24, 3.9)):
        assert stream["after", layers] == pytest.approx(1, abs=0.01)
        assert stream["before", layers] == pytest.approx(size, abs=0.1)


def test_gradients_by_layer(evidence):
    """Even where the norm is after; with it before, the first has most."""
    by_layer = evidence.names["by_layer"]
    assert max(by_layer["after"]) < 1.3 * min(by_layer["after"])
    assert by_layer["before"][0] > 2 * by_layer["before"][-1]
