"""The output projection."""

import torch


def test_concatenating_equals_a_sum_over_heads(evidence):
    """Folded matrices give the same output."""
    torch.testing.assert_close(evidence.names["summed_TD"], evidence.names["joined_TD"])


def test_folding_needs_more_parameters_and_more_cache(evidence):
    """4 and 8 times as many; and each matrix has the rank of a head."""
    assert "parameters apart 8,192, folded 32,768" in evidence.output
    assert "values of a position apart 64, folded 512" in evidence.output
    assert "rank of a folded matrix: 8" in evidence.output


def test_without_it_heads_do_not_mix(evidence):
    """Head 0 reaches its own components only."""
    assert evidence.names["touched"] == {"without W_O": 8, "with W_O": 64}
