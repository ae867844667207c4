"""The facts that the page on the size of the cache states."""

import pytest


def test_bytes_a_token(evidence):
    """The four models cache 512, 128, 320 and 67.5 KiB a token."""
    token = evidence.names["token"]
    assert [each / 1024 for each in token.values()] == [512, 128, 320, 67.5]
    assert "Llama 2 7B, MHA  512.0 KiB a token, 4096: 2.00 GiB" in evidence.output


def test_the_formula_counts_kv_heads(evidence):
    """What is allocated fits the formula; query heads make it four times too much."""
    names = evidence.names
    assert names["held"] == names["right"] == 16 * 2**20
    assert names["wrong"] == 64 * 2**20


def test_latent_share_has_both_terms(evidence):
    """MLA holds 1.76% of MHA; neither 1.56% nor 5.6%."""
    shares = list(evidence.names["share"].values())
    assert shares == pytest.approx([0.017578125, 0.015625, 0.05625])


def test_cache_as_heavy_as_weights(evidence):
    """Llama 2 7B: about 25,600 tokens of cache weigh as much as the weights."""
    assert evidence.names["even"] == pytest.approx(25558, abs=1)
