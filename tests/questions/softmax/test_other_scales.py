"""The facts that the page on other scales states."""

import pytest
import torch

from snippets.questions.softmax.other_scales import score_change


def test_scores_start_where_the_table_says(evidence):
    """Variances of about 65, 1 and 0.016, and 1 with T5's initialization."""
    values = list(evidence.names["variance"].values())
    assert values == pytest.approx([65, 1, 0.016, 1], rel=0.1)


def test_constants_can_be_absorbed(evidence):
    """Other constants and a temperature give the same weights after rescaling."""
    for other in ("full_TS", "learned_TS"):
        torch.testing.assert_close(
            evidence.names[other], evidence.names["root_TS"], rtol=0, atol=1e-14
        )


@pytest.mark.parametrize("size", [16, 64])
def test_folded_steps_go_further(size):
    """K times as far with SGD, √K times with Adam, no farther with Adafactor."""
    for name, expected in (("SGD", size), ("Adam", size**0.5), ("Adafactor", 1)):
        kind = getattr(torch.optim, name)
        ratio = score_change(kind, True, size) / score_change(kind, False, size)
        assert ratio == pytest.approx(expected, rel=0.05)
