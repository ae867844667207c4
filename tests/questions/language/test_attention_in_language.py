"""Mask patterns, pooling, and other weights with the same output."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from snippets.properties.error_budget import error_budget, largest_error
from snippets.questions.language.attention_in_language import other_weights, read
from tests.running import run_main
from tests.shape_names import lies_of


@given(T=st.integers(1, 6), S=st.integers(1, 6), causal=st.booleans())
def test_read_equals_pytorch(T, S, causal):
    """One head without batch, checked by PyTorch's own attention."""
    q, x = torch.randn(T, 4), torch.randn(S, 4)
    mask = torch.ones(T, S, dtype=torch.bool)
    mask = mask.tril() if causal else mask
    peer = F.scaled_dot_product_attention(q, x, x, attn_mask=mask)
    exact = F.scaled_dot_product_attention(
        q.double(), x.double(), x.double(), attn_mask=mask
    )
    assert largest_error(read(q, x, mask), exact) <= error_budget(peer, exact, 2)


@given(S=st.integers(3, 40), V=st.integers(1, 8), seed=st.integers(0, 99))
def test_other_weights_keep_the_output(S, V, seed):
    """Still weights, still the same sum, the largest one smaller."""
    if S <= V + 1:
        S += V
    torch.manual_seed(seed)
    v_SV = torch.randn(S, V, dtype=torch.float64)
    weight_S = torch.softmax(2 * torch.randn(S, dtype=torch.float64), dim=0)
    before = weight_S.clone()
    other_S = other_weights(weight_S, v_SV)
    assert weight_S.equal(before)
    assert (other_S >= 0).all()
    torch.testing.assert_close(other_S.sum(), weight_S.sum())
    torch.testing.assert_close(other_S @ v_SV, weight_S @ v_SV)
    top = weight_S.argmax()
    assert other_S[top] < weight_S[top]


def test_unique_weights_are_refused():
    """With few positions the weights are determined, and the function says so."""
    with pytest.raises(ValueError, match=r"has 5 positions of size 4: expected S > V"):
        other_weights(torch.full((5,), 0.2), torch.randn(5, 4))


def test_the_page_prints_what_it_quotes():
    """Counts, leak, reach, pooling and the moved weight, as the prose gives them."""
    result = run_main("snippets.questions.language.attention_in_language")
    for line in (
        "encoder-only     121 = 121 allowed pairs",
        "decoder-only     66 = 66 allowed pairs",
        "encoder-decoder  36 + 15 + 30 = 81 allowed pairs",
        "decoder-only: earlier outputs change by 0.000",
        "target positions that a source token reaches: 5",
        "becomes 0.000",
    ):
        assert line in result.output
    names = {k: v for k, v in result.names.items() if not k.startswith("__")}
    assert not lies_of(names)
    top = names["weight_N"].argmax()
    assert names["weight_N"][top] > 0.15
    assert names["other_N"][top] == 0
    assert names["drift_D"].abs().max() > 0.1


@pytest.mark.parametrize("last", [1.0, 100.0, float("inf")])
def test_causal_mask_keeps_the_future_out(last):
    """No later token, however large, changes an earlier output; without a mask it does."""
    x = torch.randn(7, 4)
    later = x.clone()
    later[-1] = last
    causal = torch.ones(7, 7, dtype=torch.bool).tril()
    assert read(later, later, causal)[:-1].equal(read(x, x, causal)[:-1])
    everything = torch.ones(7, 7, dtype=torch.bool)
    assert not read(later, later, everything)[:-1].equal(read(x, x, everything)[:-1])
