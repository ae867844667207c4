"""The facts of the page on the scaling that models use."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def names():
    """Run the evidence."""
    return run_main("snippets.questions.positions.scaling_in_models").names


def test_llama_is_not_yarn(names):
    """With the same constants the two tables differ, and not by rounding."""
    assert names["counts"]["Llama 3.1"] != names["counts"]["Llama 3.1 as YaRN"]
    assert names["apart"] > 1.5


def test_all_pairs_are_counted(names):
    """64 pairs in Llama and Qwen, 32 in the decoupled key of DeepSeek."""
    sums = {name: sum(three) for name, three in names["counts"].items()}
    assert sums == {
        "Llama 3.1": 64,
        "Qwen3": 64,
        "DeepSeek-V3": 32,
        "Llama 3.1 as YaRN": 64,
    }


def test_the_temperature_of_deepseek(names):
    """Scores are multiplied by (0.1 ln 40 + 1)²."""
    assert names["on_scores"] == pytest.approx(1.874, abs=0.001)
