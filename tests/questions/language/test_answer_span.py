"""What the page on span heads states."""

import itertools

import pytest
import torch

from snippets.questions.language.answer_span import best_span


def test_apart_about_half_are_no_spans(evidence):
    assert 0.46 < evidence.names["backwards"] < 0.52
    assert 0.34 < evidence.names["outside"] < 0.38


def test_two_answers_are_not_mixed(evidence):
    assert evidence.names["spans"] == {
        "apart": (6, 3),
        "start first": (6, 7),
        "together": (3, 3),
    }
    assert "together   : 1994 … 1994, score 8.2" in evidence.output
    assert "start first: June … 2003, score 8.1" in evidence.output


def test_scores_and_chances_choose_alike(evidence):
    assert evidence.names["same"] == 1


@pytest.mark.parametrize("longest", [1, 3, 9])
def test_equals_trying_all_pairs(longest):
    start_BS, end_BS = torch.randn(2, 5, 9)
    passage_BS = (torch.arange(9) >= 3).expand(5, 9)
    first_B, last_B = best_span(start_BS, end_BS, passage_BS, longest)
    for b in range(5):
        pairs = [
            (start_BS[b, i] + end_BS[b, j], i, j)
            for i, j in itertools.product(range(3, 9), repeat=2)
            if i <= j < i + longest
        ]
        assert (first_B[b], last_B[b]) == max(pairs)[1:]
