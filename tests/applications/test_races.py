"""Races: fair starts, right statistics, claims only where intervals part."""

import statistics

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets.applications import races as page
from snippets.applications.races import (
    LookUp,
    Runs,
    draw,
    parted,
    plot_losses,
    race,
    schedule,
    show,
    spread,
    table,
    train,
)
from snippets.transformer.multi_head import MultiHeadAttention

values = st.lists(st.floats(-100, 100), min_size=2, max_size=6)


def test_every_contestant_starts_from_the_same_seed():
    seen = {}

    def learn(model):
        seen.setdefault(model.kind, []).append((model.weight.item(), torch.rand(1)))
        return [1.0, 0.5]

    def maker(kind):
        def make():
            model = nn.Linear(1, 1)
            if kind == "wasteful":
                torch.rand(7)  # more random numbers than the other
            model.kind = kind
            return model

        return make

    kinds = ("plain", "wasteful")
    results = race({k: maker(k) for k in kinds}, learn, lambda model: 1.0, seeds=3)
    assert seen["plain"] == seen["wasteful"]
    assert len({weight for weight, _ in seen["plain"]}) == 3
    assert [len(results[k].models) for k in kinds] == [3, 3]
    assert results["plain"].losses == [[1.0, 0.5]] * 3


def test_scores_are_taken_in_eval_mode_without_gradients():
    def score(model):
        assert not model.training
        assert not torch.is_grad_enabled()
        return torch.tensor(0.25)

    runs = race({"x": lambda: nn.Linear(1, 1)}, lambda model: [0.0], score)["x"]
    assert runs.scores == [0.25] * 3
    assert all(isinstance(value, float) for value in runs.scores)


def test_the_bar_ends_on_its_own_line(capsys):
    race({"x": lambda: nn.Linear(1, 1)}, lambda model: [0.0], lambda model: 0.0)
    out = capsys.readouterr().out
    assert "3/3" in out
    assert out.endswith("\n")


def test_parameters_counts_what_is_trained():
    model = nn.Linear(3, 4)
    runs = Runs([model])
    assert runs.parameters == 16
    model.bias.requires_grad_(False)
    assert runs.parameters == 12


@given(values, values)
def test_parted_means_that_the_intervals_do_not_meet(a, b):
    low = statistics.mean(a) - statistics.stdev(a)
    high = statistics.mean(b) + statistics.stdev(b)
    assert parted(a, b) == (low > high)
    assert not (parted(a, b) and parted(b, a))


def test_one_run_has_no_interval():
    with pytest.raises(ValueError, match="1 and 3 runs: two or more of each"):
        parted([1.0], [0.0, 0.1, 0.2])
    assert spread([2.0]) == (2.0, 0.0)
    assert show([2.0]) == "2.000 (one run)"
    assert show([1.0, 2.0, 3.0], 1) == "2.0 ± 1.0"


def test_the_table_has_a_row_for_each(capsys):
    runs = Runs([nn.Linear(3, 4)] * 2, [[1.0]] * 2, [0.5, 0.7], [1.0, 3.0])
    table({"short": runs, "a longer name": runs}, "BLEU", digits=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["parameters", "seconds", "BLEU"]
    assert lines[1].split() == ["short", "16", "2.0", "0.6", "±", "0.1"]
    assert [line.index("16") for line in lines[1:]] == [lines[1].index("16")] * 2


def test_the_curve_is_the_mean_over_seeds_and_windows(monkeypatch):
    drawn = []
    monkeypatch.setattr(plt, "plot", lambda x, y, label: drawn.append((x, y, label)))
    monkeypatch.setattr(plt, "show", lambda: None)
    monkeypatch.setattr(plt, "legend", lambda: None)
    losses = [[4.0, 2.0, 1.0, 1.0, 9.0], [0.0, 2.0, 3.0, 3.0, 9.0]]
    plot_losses({"x": Runs(losses=losses)}, window=2)
    plt.close("all")
    assert drawn == [([1.0, 3.0], [2.0, 2.0], "x")]
    with pytest.raises(ValueError, match="x has 5 steps, window is 6"):
        plot_losses({"x": Runs(losses=losses)}, window=6)


@pytest.mark.parametrize("gpu", [True, False])
def test_the_longer_schedule_needs_a_gpu(monkeypatch, gpu):
    monkeypatch.setattr(page.torch.cuda, "is_available", lambda: gpu)
    assert schedule(cpu=3, gpu=30) == (30 if gpu else 3)


def test_the_toy_has_one_right_answer():
    x_BTI, answer_B = draw(50)
    for x_TI, answer in zip(x_BTI, answer_B, strict=True):
        key = x_TI[0, :8].argmax()
        rows = [row for row in x_TI[1:] if row[key] == 1]
        assert len(rows) == 1
        assert rows[0][8:].argmax() == answer
        assert x_TI[0, 8:].sum() == 0


def test_the_toy_learns(monkeypatch):
    monkeypatch.setattr(page, "schedule", lambda cpu, gpu: 60)
    losses = train(LookUp(MultiHeadAttention, 32))
    assert len(losses) == 60
    assert sum(losses[-10:]) < 0.95 * sum(losses[:10])
