"""The facts that the page on vanishing gradients states."""

import pytest
import torch

from snippets.questions.softmax.when_gradients_vanish import jacobian_norm


def test_the_norm_is_that_of_the_jacobian():
    """The closed form equals the norm of the matrix that autograd gives."""
    torch.manual_seed(0)
    score_S = torch.randn(9, dtype=torch.float64)
    jacobian_SS = torch.autograd.functional.jacobian(
        lambda x_S: torch.softmax(x_S, dim=0), score_S
    )
    norm = jacobian_norm(score_S.view(1, 1, 9)).item()
    assert norm == pytest.approx(jacobian_SS.norm().item())


def test_nothing_vanishes_at_sixty_four(evidence):
    """At 64 the unscaled median exceeds the scaled; from 128 on it is below."""
    plain, scaled = evidence.names["plain"], evidence.names["scaled"]
    assert plain[64] == pytest.approx(0.26, rel=0.15)
    for size in (4, 16, 64):
        assert plain[size] > scaled[size]
    for size in (128, 256, 512, 1024, 4096):
        assert plain[size] < scaled[size]


def test_most_vanish_later_but_not_all(evidence):
    """By 512 the median is a tenth; at 4096 it is gone while the mean is not."""
    plain, scaled, mean = (
        evidence.names["plain"],
        evidence.names["scaled"],
        evidence.names["mean"],
    )
    assert plain[512] < scaled[512] / 10
    assert plain[4096] < 1e-6
    assert mean[4096] > 1e4 * plain[4096]
    assert mean[4096] == pytest.approx(0.04, rel=0.25)


def test_more_keys_saturate_later(evidence):
    """The first size below 0.01 grows with the number of keys."""
    assert evidence.names["first"] == {16: 256, 128: 512, 1024: 1024}
