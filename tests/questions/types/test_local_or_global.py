"""Windows cost the same at any length, and only the Gaussian moves the center."""

import pytest
import torch

from snippets.questions.types.local_or_global import local_weights


def test_the_window_does_not_grow(evidence):
    """21 positions at any length."""
    assert evidence.names["scored"] == {50: 21, 500: 21, 5000: 21}


def test_the_gaussian_takes_from_the_sum(evidence):
    """Without it the weights sum to one."""
    assert evidence.names["total"]["window"] == pytest.approx(1)
    assert evidence.names["total"]["with Gaussian"] == pytest.approx(0.58, abs=0.01)


def test_only_the_gaussian_has_a_gradient(evidence):
    """The plain window does not depend on its center."""
    assert evidence.names["gradient"]["window"] is None
    assert float(evidence.names["gradient"]["with Gaussian"]) != 0


def test_the_gaussian_is_that_of_the_paper():
    """Deviation half / 2: one deviation away it is exp(-1/2)."""
    score, center = torch.zeros(41), torch.tensor(20.0)
    ratio = local_weights(score, center, 10) / local_weights(score, center, 10, False)
    assert ratio[25].item() == pytest.approx(torch.tensor(-0.5).exp().item())
