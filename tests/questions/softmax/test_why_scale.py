"""The facts that the page on √d states."""

import re

import pytest


def test_the_variance_is_the_size_and_the_root_undoes_it(evidence):
    """Var(q·k) is K, 1 after division by √K, 1/K after division by K."""
    rows = re.findall(r"^ *(\d+) +([\d.]+) +([\d.]+) +([\d.]+)$", evidence.output, re.M)
    assert [int(row[0]) for row in rows] == [4, 64, 1024]
    for size, plain, root, full in ((float(x) for x in row) for row in rows):
        assert plain == pytest.approx(size, rel=0.1)
        assert root == pytest.approx(1, rel=0.1)
        assert full == pytest.approx(1 / size, rel=0.15)


def test_dividing_by_the_size_leaves_an_average(evidence):
    """At K = 1024 the largest of 128 weights is near 1/128; with √K it is not."""
    top = re.search(r"K = 1024: × 1: (.*), × 1/√K: (.*), × 1/K: (.*)", evidence.output)
    assert [float(x) for x in top.groups()] == pytest.approx(
        [0.93, 0.07, 0.008], rel=0.1
    )


def test_softmax_explodes_nothing(evidence):
    """The Jacobian's norm stays below 1/2 and falls to nothing for large scores."""
    norms = [float(x) for x in re.findall(r"singular value (\S+)", evidence.output)]
    assert len(norms) == 3
    assert max(norms) <= 0.5
    assert norms[-1] < 1e-10
