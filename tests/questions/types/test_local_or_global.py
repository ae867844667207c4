"""Windows cost the same at any length, and only the Gaussian moves the center."""

import pytest
import torch

from snippets.questions.types.local_or_global import local_weights
from tests.running import run_main


@pytest.fixture(scope="module")
def names():
    """Run the evidence."""
    return run_main("snippets.questions.types.local_or_global").names


def test_the_window_does_not_grow(names):
    """21 positions at any length."""
    assert names["scored"] == {50: 21, 500: 21, 5000: 21}


def test_the_gaussian_takes_from_the_sum(names):
    """Without it the weights sum to one."""
    assert names["total"]["window"] == pytest.approx(1)
    assert names["total"]["with Gaussian"] == pytest.approx(0.58, abs=0.01)


def test_only_the_gaussian_has_a_gradient(names):
    """The plain window does not depend on its center."""
    assert names["gradient"]["window"] is None
    assert float(names["gradient"]["with Gaussian"]) != 0


def test_the_gaussian_is_that_of_the_paper():
    """Deviation half / 2: one deviation away it is exp(-1/2)."""
    score, center = torch.zeros(41), torch.tensor(20.0)
    ratio = local_weights(score, center, 10) / local_weights(score, center, 10, False)
    assert ratio[25].item() == pytest.approx(torch.tensor(-0.5).exp().item())
