"""Exact and approximate."""

import pytest
import torch

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.cost.exact_or_approximate")


def test_only_chunks_are_exact(page):
    """The others are far away on random vectors."""
    results, exact_TK = page.names["results"], page.names["exact_TK"]
    torch.testing.assert_close(results.pop("32 queries at a time"), exact_TK)
    for out_TK in results.values():
        assert (out_TK - exact_TK).norm() > 0.75 * exact_TK.norm()


def test_a_window_mixes_fewer_pairs(page):
    """Under a quarter."""
    assert page.names["pairs"]["window"] < 256**2 / 4
