"""Exact and approximate."""

import torch


def test_only_chunks_are_exact(evidence):
    """The others are far away on random vectors."""
    results, exact_TK = dict(evidence.names["results"]), evidence.names["exact_TK"]
    torch.testing.assert_close(results.pop("32 queries at a time"), exact_TK)
    for out_TK in results.values():
        assert (out_TK - exact_TK).norm() > 0.75 * exact_TK.norm()


def test_a_window_mixes_fewer_pairs(evidence):
    """Under a quarter."""
    assert evidence.names["pairs"]["window"] < 256**2 / 4
