"""The facts of the page on the scaling that models use."""

import pytest


def test_llama_is_not_yarn(evidence):
    """With the same constants the two tables differ, and not by rounding."""
    assert (
        evidence.names["counts"]["Llama 3.1"]
        != evidence.names["counts"]["Llama 3.1 as YaRN"]
    )
    assert evidence.names["apart"] > 1.5


def test_all_pairs_are_counted(evidence):
    """64 pairs in Llama and Qwen, 32 in the decoupled key of DeepSeek."""
    assert evidence.names["counts"] == {
        "Llama 3.1": (29, 6, 29),
        "Qwen3": (24, 16, 24),
        "DeepSeek-V3": (11, 12, 9),
        "Llama 3.1 as YaRN": (19, 16, 29),
    }


def test_the_temperature_of_deepseek(evidence):
    """Scores are multiplied by (0.1 ln 40 + 1)²."""
    assert evidence.names["on_scores"] == pytest.approx(1.874, abs=0.001)
