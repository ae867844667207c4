"""What the counter sees, and the rule of 6N."""

import pytest
import torch


def test_only_matrix_products_count(evidence):
    """The same product, multiplied and summed, is invisible; so is the softmax."""
    counted = evidence.names["counted"]
    assert counted["x @ w"] == 2 * 256 * 64 * 64
    assert counted["the same, multiplied and summed"] == 0
    assert counted["softmax, norm, exp"] == 0


def test_a_causal_mask_gets_no_discount(evidence):
    """All pairs are counted."""
    counted = evidence.names["counted"]
    plain = counted["attention, by matrix products"]
    assert counted["SDPA, math"] == counted["SDPA, math, causal"] == plain


def test_the_fused_kernel_counts_only_where_registered(evidence):
    """In PyTorch 2.13 that of the CPU is not."""
    if torch.get_default_device().type != "cpu":
        pytest.skip("says what happens on a CPU")
    if not torch.__version__.startswith("2.13"):
        pytest.skip("the page names version 2.13")
    assert evidence.names["counted"]["SDPA, as it comes"] == 0


def test_attention_is_what_6n_lacks(evidence):
    """From an eighth at T = D to two thirds at T = 16 D."""
    share = evidence.names["share"]
    assert share[64] == pytest.approx(0.12, abs=0.005)
    assert share[384] == pytest.approx(0.45, abs=0.005)
    assert share[1024] == pytest.approx(0.69, abs=0.005)


def test_recomputing_is_counted_and_stays_below_a_third(evidence):
    """The whole forward pass again would be a third more."""
    more = evidence.names["more"]
    assert all(1.19 < times < 4 / 3 for times in more.values())
