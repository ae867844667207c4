"""Rows that may see nothing."""

import torch


def test_naive_rows_are_nan_and_sdpa_gives_zeros(evidence):
    """The rows with keys agree."""
    names = evidence.names
    assert names["naive_1TV"][:, :2].isnan().all()
    assert (names["sdpa_1TV"][:, :2] == 0).all()
    torch.testing.assert_close(names["naive_1TV"][:, 2:], names["sdpa_1TV"][:, 2:])


def test_a_finite_fill_averages_everything(evidence):
    """Padding included."""
    names = evidence.names
    torch.testing.assert_close(names["finite_1TV"][:, 0], names["v_1SV"].mean(1))


def test_nan_reaches_gradients_of_a_loss_that_leaves_the_row_out(evidence):
    """The emptied rows do not."""
    assert "naive: 100% of the values' gradients are NaN" in evidence.output
    assert "safe: 0% of the values' gradients are NaN" in evidence.output
