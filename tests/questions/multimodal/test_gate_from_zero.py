"""What the page on the gate states."""

import pytest


@pytest.mark.parametrize("layers", [2, 4, 8])
def test_only_a_closed_gate_leaves_the_model_alone(evidence, layers):
    shift = evidence.names["shift"]
    assert shift[layers, 0.0] == 0
    assert shift[layers, 1.0] > shift[layers, 0.5] > 1e-4


def test_the_shift_grows_with_depth(evidence):
    shift = evidence.names["shift"]
    assert shift[8, 1.0] > shift[4, 1.0] > shift[2, 1.0]


def test_the_gate_opens(evidence):
    assert "step   0: tanh(gate)  0.00" in evidence.output
    assert abs(evidence.names["opening"]) > 0.01
    assert evidence.names["loss"] < 0.05
