"""What the page on the attentive decoder states."""

import pytest
import torch

from snippets.questions.language.attentive_decoder import Decoder


def test_only_a_decoder_that_moves_first_uses_the_last_word(evidence):
    assert "looks before moving: weights differ from step 3" in evidence.output
    assert "looks after  moving: weights differ from step 2" in evidence.output


def test_the_keys_are_projected_once(evidence):
    assert "keys projected: 70 without the cache, 14 with it" in evidence.output


@pytest.mark.parametrize("order", ["before", "after"])
def test_weights_sum_to_one_and_later_words_change_nothing(order):
    decoder = Decoder(10, 8, order)
    memory_BSD, word_BT = torch.randn(3, 6, 8), torch.randint(10, (3, 5))
    weight_BTS = decoder(word_BT, memory_BSD)
    torch.testing.assert_close(weight_BTS.sum(-1), torch.ones(3, 5))
    assert decoder(word_BT[:, :3], memory_BSD).allclose(weight_BTS[:, :3], atol=1e-6)
