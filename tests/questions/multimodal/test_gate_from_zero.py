"""What the page on the gate states."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def run():
    return run_main("snippets.questions.multimodal.gate_from_zero")


@pytest.mark.parametrize("layers", [2, 4, 8])
def test_only_a_closed_gate_leaves_the_model_alone(run, layers):
    shift = run.names["shift"]
    assert shift[layers, 0.0] == 0
    assert shift[layers, 1.0] > shift[layers, 0.5] > 1e-4


def test_the_shift_grows_with_depth(run):
    shift = run.names["shift"]
    assert shift[8, 1.0] > shift[4, 1.0] > shift[2, 1.0]


def test_the_gate_opens(run):
    assert "step   0: tanh(gate)  0.00" in run.output
    assert abs(run.names["opening"]) > 0.01
    assert run.names["loss"] < 0.05
