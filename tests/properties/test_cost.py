"""Costs: known products, known memory, exact powers."""

import matplotlib.pyplot as plt
import pytest
import torch

from snippets.properties.cost import (
    count_flops,
    exponent,
    largest_bytes,
    peak_bytes,
    plot_growth,
    seconds,
)
from tests.running import run_main


def test_flops_of_products():
    x, y = torch.randn(3, 5), torch.randn(5, 7)
    assert count_flops(lambda: x @ y) == 2 * 3 * 5 * 7
    assert count_flops(lambda: (x @ y, x @ y)) == 4 * 3 * 5 * 7
    assert count_flops(lambda: x + 1) == 0


def test_peak_counts_what_lives_at_once():
    x = torch.randn(1000)

    def chain():
        y = x + 1
        y = y + 1
        y = y + 1
        return y

    def kept():
        return [x + 1, x + 2, x + 3]

    assert peak_bytes(chain) == 2 * 4000
    assert peak_bytes(kept) == 3 * 4000


def test_views_and_inputs_cost_nothing():
    x = torch.randn(10, 100)
    assert peak_bytes(lambda: x.T[2:].reshape(-1)[:5].expand(3, 5)) <= 4000
    assert peak_bytes(lambda: x.T[2:]) == 0
    assert peak_bytes(lambda: x.mul_(1)) == 0
    assert largest_bytes(lambda: x.view(-1)) == 0


def test_largest_is_one_tensor():
    x = torch.randn(100)
    assert largest_bytes(lambda: [x + 1, torch.cat([x, x]), x + 2]) == 800
    assert largest_bytes(lambda: x.double()) == 800


def test_memory_of_a_second_call_does_not_add_up():
    x = torch.randn(1000)
    assert peak_bytes(lambda: [x + 1 for _ in range(5)] and None) == 5 * 4000
    assert peak_bytes(lambda: [(x + 1).sum() for _ in range(5)]) < 2 * 4000


def test_seconds_calls_and_is_positive():
    calls = []
    assert seconds(lambda: calls.append(1), runs=3) > 0
    assert len(calls) >= 4


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.0])
def test_exponent_of_exact_powers(power):
    lengths = [10, 30, 50, 200]
    values = [7 * n**power for n in lengths]
    assert exponent(lengths, values) == pytest.approx(power, abs=1e-5)


def test_growth_names_fit_and_formula():
    plt.figure()
    plot_growth([1, 2, 4], {"a": ([1, 4, 16], 2), "b": ([1, 2, 4], 1.0)})
    axis = plt.gca()
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["a: fitted 2.00, stated 2", "b: fitted 1.00, stated 1"]
    assert axis.get_xscale() == axis.get_yscale() == "log"
    assert axis.get_xlabel() == "length"
    plt.close()


def test_demonstration():
    out = run_main("snippets.properties.cost").output
    assert "product of 256 × 64 and 64 × 256: 8388608 FLOPs" in out
    assert "scores and weights: peak 524288 = 2 × 262144 bytes" in out
