"""What the page on channel gates states."""

import pytest


@pytest.mark.parametrize(
    "line",
    [
        "2048 channels, 3 blocks: 1.57 M weights",
        "all: 2.51 M weights, last stage 63%",
        "operations: 13.6 M of 3860 M: 0.35%",
    ],
)
def test_the_page_prints_what_it_quotes(evidence, line):
    assert line in evidence.output


def test_gates_keep_half_and_softmax_keeps_one_channels_share(evidence):
    for size, (gated, shared) in evidence.names["kept"].items():
        assert gated == pytest.approx(0.5, abs=0.05)
        assert 1 / size <= shared < 1.3 / size


def test_only_gates_can_open_or_close_together(evidence):
    open_all = evidence.names["gate_D"]  # of the last round: all logits + 4
    assert open_all.mean() > 0.95
    assert open_all.sum() > 60
    assert evidence.output.count("mean softmax 0.0156") == 3
