"""The facts that the page on sparsity states."""

import pytest
import torch

from snippets.questions.softmax.softmax_sparse import keys_for, sparsemax


def test_softmax_has_no_zeros(evidence):
    """Neither plain nor sharpened; top-k and sparsemax have many."""
    assert list(evidence.names["zeros"].values()) == [0, 0, 990, 998]


def test_concentration_depends_on_the_gaps(evidence):
    """About 590 keys hold 90 % of the weight; with scores 5 times larger, 2 do."""
    assert evidence.names["needed"]["softmax"] == pytest.approx(590, abs=15)
    assert evidence.names["needed"]["softmax of 5 × the scores"] == 2


def test_sparsemax_is_the_nearest_distribution():
    """No random distribution is nearer to the scores."""
    torch.manual_seed(0)
    score_S = torch.randn(5)
    p_S = sparsemax(score_S)
    assert p_S.sum().item() == pytest.approx(1)
    other_NS = torch.distributions.Dirichlet(torch.ones(5) / 2).sample((10_000,))
    distance_N = (other_NS - score_S).square().sum(-1)
    assert (p_S - score_S).square().sum() <= distance_N.min()


def test_keys_for_counts_from_the_largest():
    """Half of the weight is one key here, 90 % are three."""
    p_S = torch.tensor([0.2, 0.5, 0.05, 0.25])
    assert (keys_for(p_S, 0.4), keys_for(p_S, 0.9)) == (1, 3)


def test_more_keys_dilute(evidence):
    """The outstanding key ends with about 0.02."""
    share = torch.softmax(evidence.names["score_S"], 0)[0].item()
    assert share == pytest.approx(0.02, abs=0.004)
