"""The gradient check."""

import torch


def test_it_accepts_the_right_and_rejects_each_fault(evidence):
    """Even one of 1%."""
    assert evidence.names["accepted"] == {
        "": True,
        "no scale": False,
        "no row sum": False,
        "off by 1%": False,
    }


def test_single_precision_wants_a_longer_step_and_gets_less(evidence):
    """The best step of float32 is 10,000 times as long."""
    best = evidence.names["best"]
    assert -7 <= best[torch.float64] <= -4
    assert -3 <= best[torch.float32] <= -1


def test_the_default_step_is_meant_for_double_precision(evidence):
    """With 1e-6, float32 is off by hundredths."""
    default = evidence.names["default"]
    assert default[torch.float64] < 1e-9
    assert 1e-3 < default[torch.float32] < 1


def test_single_precision_fails_a_right_backward(evidence):
    """With the default step of 1e-6."""
    assert evidence.names["told"].startswith("Jacobian mismatch")


def test_some_inputs_hide_the_fault(evidence):
    """One key, or a saturated softmax: all gradients of scores are 0."""
    blind = evidence.names["blind"]
    assert blind == {"five keys": False, "one key": True, "saturated": True}
