"""What the answer states: four blocks, the mixture, a masked modality."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from snippets.foundations.scaled_dot_product import attend


def test_the_page_prints_what_it_quotes(evidence):
    rows = {
        line[:12].strip(): line[12:].split()
        for line in evidence.output.splitlines()
        if line.startswith(("joint  ", "co-", "two"))
    }
    assert rows["co-attention"] == ["0.000", "1.000", "1.000", "0.000", "True"]
    assert rows["two towers"] == ["1.000", "0.000", "0.000", "1.000", "False"]
    assert rows["joint"][1] == "0.760"
    assert rows["joint"][4] == "True"


def test_missing_image_is_text_alone(evidence):
    for name in ("k_11JK", "v_11JK"):
        assert evidence.names[name][0, 0, 4:].isnan().all()
    torch.testing.assert_close(
        evidence.names["alone_11TK"], evidence.names["self_11TK"]
    )


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 999))
def test_joint_attention_is_a_mixture_of_self_and_cross(T, S, seed):
    torch.manual_seed(seed)
    q, k, v = torch.randn(3, 2, 2, T + S, 8, dtype=torch.float64)
    q = q[:, :, :T]
    share = torch.softmax(q @ k.mT / 8**0.5, -1)[..., T:].sum(-1, keepdim=True)
    own = attend(q, k[:, :, :T], v[:, :, :T])
    cross = attend(q, k[:, :, T:], v[:, :, T:])
    torch.testing.assert_close(attend(q, k, v), (1 - share) * own + share * cross)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 999))
def test_off_diagonal_mask_is_cross_attention_both_ways(T, S, seed):
    torch.manual_seed(seed)
    q, k, v = torch.randn(3, 1, 1, T + S, 8, dtype=torch.float64)
    text = torch.arange(T + S) < T
    mask = (text[:, None] != text).expand(1, 1, -1, -1)
    out = attend(q, k, v, mask)
    there = attend(q[:, :, :T], k[:, :, T:], v[:, :, T:])
    back = attend(q[:, :, T:], k[:, :, :T], v[:, :, :T])
    torch.testing.assert_close(out, torch.cat((there, back), 2))
