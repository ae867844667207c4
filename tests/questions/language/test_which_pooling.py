"""What the page on pooling states."""

import pytest
import torch

from snippets.questions.language.which_pooling import pool


@pytest.mark.parametrize("S", [3, 17, 129])
def test_attention_finds_the_marked_word_at_any_length(evidence, S):
    assert evidence.names["right"]["marked word", S, True] > 0.98


def test_the_mean_loses_the_marked_word_in_long_sentences(evidence):
    right = evidence.names["right"]
    found = [right["marked word", S, False] for S in (3, 17, 129)]
    assert found == sorted(found, reverse=True)
    assert 0.65 < found[0] < 0.8
    assert found[-1] < 0.6


@pytest.mark.parametrize("S", [3, 17, 129])
def test_where_all_words_count_the_mean_is_not_worse(evidence, S):
    right = evidence.names["right"]
    assert right["all words", S, False] > 0.98
    assert right["all words", S, False] > right["all words", S, True] - 0.01


def test_a_query_of_zeros_is_the_mean():
    x_BSD = torch.randn(3, 7, 8, dtype=torch.float64)
    query_D = torch.zeros(8, dtype=torch.float64)
    torch.testing.assert_close(pool(x_BSD, query_D), x_BSD.mean(1))


def test_masked_words_do_not_train_the_last_cls_vector(evidence):
    assert evidence.names["at_cls"] == 0
    assert evidence.names["at_mask"] > 0.01
