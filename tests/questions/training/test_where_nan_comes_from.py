"""NaN in training."""

import math

import torch
from torch import nn

from snippets.questions.training.where_nan_comes_from import loss_of


def test_the_loss_is_one_step_late(evidence):
    """At the faulty step only the gradient is NaN; the loss follows a step later."""
    nan = [math.isnan(x) for x in evidence.names["losses"]]
    assert nan == [False, False, False, True]
    nan = [math.isnan(x) for x in evidence.names["norms"]]
    assert nan == [False, False, True, True]


def test_the_step_ruins_the_values_first(evidence):
    """`masked_fill` stops NaN on the way to queries and keys; a step later all have it."""
    assert evidence.names["ruined"] == ["", "", "v", "qkv"]


def test_skipping_later_batches_does_not_help():
    """Ruined values make the loss of each later batch NaN, without another update."""
    layer = nn.Linear(8, 24)
    loss_of(layer, [6, 5, 0]).backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    for lengths in ([6, 5, 4], [6, 6, 6], [1, 2, 3]):
        assert loss_of(layer, lengths).isnan()


def test_it_is_born_in_the_softmax(evidence):
    """The first operator that makes NaN out of none; autograd names a later one."""
    assert evidence.names["births"].born == ["_softmax"]
    assert "BmmBackward0" in evidence.names["told"]


def test_only_half_precision_scaled_late_overflows(evidence):
    """Five of six ways give a weight of 1."""
    sure = evidence.names["sure"]
    assert math.isnan(sure[torch.float16, "after"])
    assert sum(weight == 1 for weight in sure.values()) == 5


def test_where_passes_nan_backward(evidence):
    """Unless the bad value is kept out of the logarithm, too."""
    grads = evidence.names["grads"]
    assert grads["where outside"].isnan().tolist() == [False, False, True]
    assert grads["where inside, too"][2] == 0


def test_clipping_spreads_it(evidence):
    """The good gradient is NaN afterwards."""
    assert evidence.names["good_1"].grad.isnan().all()
