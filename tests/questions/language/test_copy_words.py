"""What the page on copying states."""

import pytest
import torch

from snippets.questions.language.copy_words import mix


def test_the_page_prints_what_it_quotes(evidence):
    assert "p_gen 1.0: zhou 0.000, most probable word <unk>" in evidence.output
    assert "p_gen 0.5: zhou 0.325, most probable word zhou" in evidence.output
    assert "p_gen 0.2: zhou 0.520, most probable word zhou" in evidence.output


def test_assignment_loses_the_mass_of_repeated_words(evidence):
    assert evidence.names["right_N"].sum().item() == pytest.approx(1)
    assert evidence.names["careless_N"].sum().item() < 0.8


@pytest.mark.parametrize("generate", [0.0, 0.3, 1.0])
def test_equals_a_sum_word_by_word(generate):
    vocabulary_E = torch.rand(7).softmax(0).double()
    word_S = torch.randint(10, (12,))
    weight_S = torch.rand(12).softmax(0).double()
    chance = [0.0] * max(7, int(word_S.max()) + 1)
    for word in range(7):
        chance[word] += generate * vocabulary_E[word].item()
    for word, weight in zip(word_S.tolist(), weight_S.tolist(), strict=True):
        chance[word] += (1 - generate) * weight
    mixed_N = mix(generate, vocabulary_E, weight_S, word_S)
    assert mixed_N.tolist() == pytest.approx(chance)
