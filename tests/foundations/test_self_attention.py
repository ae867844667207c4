"""Self-attention: an independent oracle, symmetry under permutations, reach, cost."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets.foundations.self_attention import SelfAttention, count_flops, reach
from snippets.properties.error_budget import error_budget, largest_error
from tests.running import run_main


# --8<-- [start:equals-multihead]
def test_equals_multihead_with_one_head():
    """`nn.MultiheadAttention` with one head and W_O = 1, the same three matrices."""
    layer, x = SelfAttention(16, 16), torch.randn(2, 9, 16)
    peer = nn.MultiheadAttention(16, 1, bias=False, batch_first=True)
    with torch.no_grad():
        peer.in_proj_weight.copy_(
            torch.cat([layer.to_q.weight, layer.to_k.weight, layer.to_v.weight])
        )
        peer.out_proj.weight.copy_(torch.eye(16))
        theirs, _ = peer(x, x, x)
        out = layer(x)
        exact, _ = peer.double()(x.double(), x.double(), x.double())
    error, allowed = largest_error(out, exact), error_budget(theirs, exact)
    assert error <= allowed
    print(f"largest error {error:.1e}, allowed {allowed:.1e}")


# --8<-- [end:equals-multihead]


@given(
    seed=st.integers(0, 999),
    B=st.integers(1, 2),
    T=st.integers(1, 7),
    D=st.integers(1, 6),
    V=st.integers(1, 5),
)
def test_equivariant_and_pooled_invariant(seed, B, T, D, V):
    """Moving the input moves the output along; the mean does not notice."""
    torch.manual_seed(seed)
    layer, x = SelfAttention(D, V).double(), torch.randn(B, T, D).double()
    order = torch.randperm(T)
    out, moved = layer(x), layer(x[:, order])
    torch.testing.assert_close(moved, out[:, order])
    torch.testing.assert_close(moved.mean(1), out.mean(1))


def test_not_invariant():
    """A permutation that moves something changes the output."""
    layer, x = SelfAttention(8, 8), torch.randn(1, 5, 8)
    assert not layer(x.flip(1)).isclose(layer(x)).all()


def test_causal_mask_breaks_equivariance():
    """A causal mask treats positions differently."""
    layer, x = SelfAttention(8, 8), torch.randn(1, 5, 8)
    mask = torch.ones(1, 5, 5, dtype=torch.bool).tril()
    moved, out = layer(x.flip(1), mask), layer(x, mask)
    assert not moved.allclose(out.flip(1), atol=1e-3)


def test_two_causal_layers_tell_order():
    """The last output of one layer is blind to the order before it; of two it is not."""
    one, two = SelfAttention(8, 8).double(), SelfAttention(8, 8).double()
    x = torch.randn(1, 6, 8).double()
    swapped = x[:, [2, 0, 1, 4, 3, 5]]
    mask = torch.ones(1, 6, 6, dtype=torch.bool).tril()
    a, b = one(x, mask), one(swapped, mask)
    torch.testing.assert_close(a[:, -1], b[:, -1])
    a, b = two(a, mask), two(b, mask)
    assert (a[:, -1] - b[:, -1]).abs().max() > 1e-3


def test_same_projection_gives_symmetric_scores():
    """Q = K: the score of s for t equals that of t for s; two projections differ."""
    layer, x = SelfAttention(8, 8).double(), torch.randn(6, 8).double()
    q, k = layer.to_q(x), layer.to_k(x)
    torch.testing.assert_close(q @ q.T, (q @ q.T).T)
    assert not (q @ k.T).allclose((q @ k.T).T, atol=1e-2)


def test_three_projections_are_used():
    """Each of the three matrices changes the output, and each gets a gradient."""
    layer, x = SelfAttention(8, 8), torch.randn(1, 5, 8)
    layer(x).square().sum().backward()
    grads = [p.grad.abs().max().item() for p in layer.parameters()]
    assert len(grads) == 3
    assert min(grads) > 0


def test_head_size_scales_the_scores():
    """The divisor is √ of the head size, not of the model size."""
    layer, x = SelfAttention(32, 4).double(), torch.randn(1, 5, 32).double()
    score = layer.to_q(x) @ layer.to_k(x).mT / math.sqrt(4)
    torch.testing.assert_close(layer(x), F.softmax(score, -1) @ layer.to_v(x))


def test_masked_positions_do_not_count():
    """A padded batch equals the unpadded sequence, even when padding is NaN."""
    layer, x = SelfAttention(8, 4).double(), torch.randn(1, 7, 8).double()
    mask = torch.ones(1, 7, 7, dtype=torch.bool)
    mask[..., 4:] = False
    short = layer(x[:, :4])
    x[:, 4:] = math.nan
    torch.testing.assert_close(layer(x, mask)[:, :4], short)


def test_gradcheck():
    """Gradients agree with finite differences."""
    layer = SelfAttention(3, 2).double()
    x = torch.randn(1, 4, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(layer, x)


def test_reach():
    """All pairs for attention, a band for convolution, the past for a causal mask."""
    layer, x = SelfAttention(4, 4), torch.randn(1, 7, 4)
    mask = torch.ones(1, 7, 7, dtype=torch.bool).tril()
    assert reach(layer, x).all()
    assert reach(lambda x: layer(x, mask), x).equal(mask[0])
    conv = nn.Conv1d(4, 4, 3, padding=1)
    assert reach(lambda x: conv(x.mT).mT, x).equal(
        mask[0].triu(-1) | mask[0].triu(-1).T
    )


@pytest.mark.parametrize("T", [2, 10, 96])
def test_flops(T):
    """Projections 6·T·D², pairs 4·T²·D; equal at T = 1.5·D."""
    assert count_flops(T, 64) == 6 * T * 64**2 + 4 * T**2 * 64


def test_bad_input_is_named():
    """The size that came, and the size expected."""
    with pytest.raises(ValueError, match=r"x has shape \(1, 5, 7\), expected .*, 8\)"):
        SelfAttention(8, 4)(torch.randn(1, 5, 7))
    with pytest.raises(ValueError, match=r"x has shape \(5, 8\)"):
        SelfAttention(8, 4)(torch.randn(5, 8))


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.foundations.self_attention").output
    assert "Q = K: asymmetry 0.00, 11 of 12 prefer themselves" in out
    assert "two projections: asymmetry 5.91, 1 of 12 prefer themselves" in out
    assert (
        "equivariant: True\ninvariant: False\ninvariant after mean pooling: True" in out
    )
    assert "1 causal layer(s): the last output moves by 0.000" in out
    assert "2 causal layer(s): the last output moves by 0.000" not in out
    assert "T =   96:    4.72 MFLOPs, 50% in pairs" in out
    assert "convolution, width 3: 34 of 144 pairs\nRNN: 78 of 144 pairs" in out
