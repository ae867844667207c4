"""What the page on the attentive decoder states."""

import pytest
import torch

from snippets.questions.language.attentive_decoder import Decoder
from tests.running import run_main


@pytest.fixture(scope="module")
def run():
    return run_main("snippets.questions.language.attentive_decoder")


def test_only_a_decoder_that_moves_first_uses_the_last_word(run):
    assert "looks before moving: weights differ from step 3" in run.output
    assert "looks after  moving: weights differ from step 2" in run.output


def test_the_keys_are_projected_once(run):
    assert "keys projected: 70 without the cache, 14 with it" in run.output


@pytest.mark.parametrize("order", ["before", "after"])
def test_weights_sum_to_one_and_later_words_change_nothing(order):
    decoder = Decoder(10, 8, order)
    memory_BSD, word_BT = torch.randn(3, 6, 8), torch.randint(10, (3, 5))
    weight_BTS = decoder(word_BT, memory_BSD)
    torch.testing.assert_close(weight_BTS.sum(-1), torch.ones(3, 5))
    assert decoder(word_BT[:, :3], memory_BSD).allclose(weight_BTS[:, :3], atol=1e-6)
