"""ALiBi: BLOOM, MPT, SDPA and FlexAttention as oracles; any heads, cache, padding."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from snippets.positions.alibi import alibi_attention, alibi_bias, slopes
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import batch_independence, causality, convexity
from tests.running import run_main


def biased(q, k, v, keep=None):
    """PyTorch's SDPA with the bias as a float mask, built by loops over distances."""
    B, H, T, S = *q.shape[:3], k.shape[2]
    mask = torch.full((B, H, T, S), -math.inf, dtype=torch.float64)
    for h in range(H):
        for t in range(T):
            for s in range(S - T + t + 1):
                mask[:, h, t, s] = -rule(H)[h] * (S - T + t - s)
    if keep is not None:
        mask = mask.masked_fill(~keep[:, None, None], -math.inf)
    return F.scaled_dot_product_attention(q, k, v, mask.to(q.dtype))


def rule(H):
    """The authors' rule, by recursion."""
    n = 1
    while 2 * n <= H:
        n *= 2
    start = [2 ** (-8 * (h + 1) / n) for h in range(n)]
    return start if n == H else start + rule(2 * n)[::2][: H - n]


# --8<-- [start:geometric]
def test_slopes_are_geometric_for_powers_of_two():
    """From 2^(-8/n) to 2^-8; other numbers of heads fill the gaps in between."""
    for n in (1, 2, 4, 8, 16):
        assert slopes(n)[-1] == 2**-8
        assert ((slopes(n).log2().diff() + 8 / n).abs() < 1e-12).all()
    for heads in (3, 5, 6, 7, 12, 20):
        n = 2 ** int(math.log2(heads))
        expected = torch.cat((slopes(n), slopes(2 * n)[::2][: heads - n]))
        torch.testing.assert_close(slopes(heads), expected)
        print(f"{heads:2} heads: those of {n}, and {heads - n} of {2 * n}")


# --8<-- [end:geometric]


def test_slopes_equal_bloom_and_mpt():
    """Two models of transformers, for every number of heads up to 70."""
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor
    from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

    for heads in range(1, 71):
        bloom = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0, 1]
        mpt = -build_mpt_alibi_tensor(heads, 2)[:, 0, 0]
        for theirs in (bloom, mpt):
            torch.testing.assert_close(slopes(heads).float(), theirs, rtol=1e-6, atol=0)
        assert slopes(heads).tolist() == pytest.approx(rule(heads), rel=1e-14)
    assert slopes(7).dtype == torch.float64


def test_bias_equals_mpt():
    """The last row of a square is MPT's bias; with fewer queries the rows are the last."""
    from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

    for heads, S in ((8, 9), (12, 4), (1, 1)):
        whole = alibi_bias(slopes(heads), S, S)
        theirs = build_mpt_alibi_tensor(heads, S).double()
        torch.testing.assert_close(whole[:, -1:], theirs, rtol=1e-6, atol=0)
        for T in range(S + 1):
            assert alibi_bias(slopes(heads), T, S).equal(whole[:, S - T :])
    assert alibi_bias(torch.tensor([2.0]), 2, 3).tolist() == [[[-2, 0, 2], [-4, -2, 0]]]
    assert alibi_bias(torch.tensor([2.0]), 2, 3).dtype == torch.float64


# --8<-- [start:flex]
def test_equals_flex_attention():
    """The same in PyTorch's FlexAttention, 3 queries on a cache of 7 keys, 12 heads."""
    import warnings

    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = torch.randn(2, 12, 3, 16), *torch.randn(2, 2, 12, 7, 16)
    slope = slopes(12).float()

    def score_mod(score, b, h, i, j):
        away = 7 - 3 + i - j
        return torch.where(away >= 0, score - slope[h] * away, -math.inf)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is not compiled
        theirs = flex_attention(q, k, v, score_mod=score_mod)
    off = (alibi_attention(q, k, v) - theirs).abs().max().item()
    assert off < 1e-5
    print(f"largest difference {off:.1e}")


# --8<-- [end:flex]


# --8<-- [start:bloom-form]
def test_distance_or_position_is_the_same():
    """BLOOM adds m · j. A row of scores shifts as a whole, and weights stay."""
    score = torch.randn(8, 5, 9).double()
    future = torch.ones(5, 9, dtype=torch.bool).triu(9 - 5 + 1)
    by_distance = score + alibi_bias(slopes(8), 5, 9)
    by_position = score + slopes(8)[:, None, None] * torch.arange(9)
    weights = [
        one.masked_fill(future, -math.inf).softmax(-1)
        for one in (by_distance, by_position)
    ]
    torch.testing.assert_close(*weights)
    print("scores differ by up to", (by_distance - by_position).abs().max().item())


# --8<-- [end:bloom-form]


# --8<-- [start:extrapolates]
def test_far_keys_hardly_matter():
    """Beyond a distance of 64 / slope keys change nothing, however many there are."""
    q, k, v = torch.randn(1, 8, 1, 16), *torch.randn(2, 1, 8, 4000, 16)
    whole = alibi_attention(q, k, v)
    for h, slope in enumerate(slopes(8).tolist()):
        window = min(4000, int(64 / slope))
        near = alibi_attention(q, k[:, :, -window:], v[:, :, -window:])
        assert (near - whole)[0, h].abs().max() < 1e-5
    print("slope 1/2: 128 of 4000 keys are enough")


# --8<-- [end:extrapolates]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sizes", [(5, 5), (1, 9), (4, 11), (1, 1)])
def test_equals_sdpa(dtype, sizes):
    """Outputs and gradients within the error of PyTorch's own, in each dtype."""
    T, S = sizes
    q, k, v = (torch.randn(2, 6, n, 8).to(dtype) for n in (T, S, S))
    keep = torch.arange(S) >= torch.tensor([[0], [min(2, S - T)]])
    upstream, results = torch.randn(2, 6, T, 8), []
    for call, cast in (
        (alibi_attention, dtype),
        (biased, dtype),
        (biased, torch.double),
    ):
        leaves = [one.to(cast, copy=True).requires_grad_() for one in (q, k, v)]
        out = call(*leaves, keep)
        grads = torch.autograd.grad(out, leaves, upstream.to(cast))
        results.append([out, *grads])
    for ours, theirs, exact in zip(*results, strict=True):
        assert ours.dtype == dtype
        assert largest_error(ours, exact) <= error_budget(theirs, exact)


@given(
    seed=st.integers(0, 999),
    B=st.integers(1, 2),
    H=st.integers(1, 5),
    T=st.integers(1, 4),
    more=st.integers(0, 4),
    K=st.integers(1, 3),
)
def test_equals_sdpa_on_any_shape(seed, B, H, T, more, K):
    """One head, one token, more keys than queries; not contiguous."""
    torch.manual_seed(seed)
    q, k, v = (
        torch.randn(B, n, H, K).double().transpose(1, 2)
        for n in (T, T + more, T + more)
    )
    torch.testing.assert_close(alibi_attention(q, k, v), biased(q, k, v))


def test_properties():
    """The future and other samples change nothing; values are averaged."""

    def run(draw):
        B, T = draw.size("B", 1, 3), draw.size("T", 1, 6)
        x = draw.normal(B, T, 3, 2, 4)

        def f(x):
            return alibi_attention(*x.movedim(1, 3).unbind(1)).transpose(1, 2)

        causality(f, x, draw)
        batch_independence(f, x, draw)
        q, k, v = draw.normal(3, B, 2, T, 4)
        late = torch.arange(T) < draw.size("visible", 1, T)
        keep = late.flip(0).expand(B, T)
        convexity(lambda v: alibi_attention(q, k, v, keep)[:, :, -1:], v, draw)

    hold(run)


def test_decoding_equals_the_full_pass():
    """The last T queries alone give the last T outputs, for every T."""
    q, k, v = torch.randn(3, 2, 6, 7, 8).double()
    whole = alibi_attention(q, k, v)
    for T in range(1, 8):
        torch.testing.assert_close(
            alibi_attention(q[:, :, -T:], k, v), whole[:, :, -T:]
        )


def test_padding_may_hold_nan():
    """Left padding with NaN or Inf equals no padding; what sees nothing is zero."""
    q, k, v = torch.randn(3, 1, 3, 6, 8).double()
    short = alibi_attention(*(one[:, :, 2:] for one in (q, k, v)))
    for bad in (math.nan, math.inf, -math.inf):
        leaves = []
        for one in (q, k, v):
            one = one.clone()
            one[:, :, :2] = bad
            leaves.append(one.requires_grad_())
        out = alibi_attention(*leaves, torch.arange(6)[None] >= 2)
        torch.testing.assert_close(out[:, :, 2:], short)
        assert (out[:, :, :2] == 0).all()
        for grad in torch.autograd.grad(out.sum(), leaves):
            assert grad.isfinite().all()


def test_nan_in_the_future_does_not_leak():
    """A NaN key and value reach only the queries that may see them."""
    q, k, v = torch.randn(3, 1, 2, 5, 4)
    before = alibi_attention(q, k, v)
    k[:, :, 4] = math.nan
    v[:, :, 4] = math.inf
    torch.testing.assert_close(alibi_attention(q, k, v)[:, :, :4], before[:, :, :4])


def test_huge_scores_stay_finite():
    """Logits of ±1e4 and beyond, in float16, too."""
    q, k, v = torch.randn(3, 1, 2, 4, 8)
    assert alibi_attention(q * 1e4, k * 1e4, v).isfinite().all()
    q, k, v = q.half() * 100, k.half() * 100, v.half()
    assert alibi_attention(q, k, v).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_are_rounded_once(dtype):
    """Bias and softmax are computed in float32: each weight is exact to half an ulp."""
    S, flat = 600, torch.zeros(1, 8, 600, 4, dtype=dtype)
    seen = torch.eye(S, dtype=dtype).expand(1, 8, S, S)  # the output is the weights
    out = alibi_attention(flat[:, :, :1], flat, seen)[0, 7, 0].double()
    exact = alibi_bias(slopes(8), 1, S)[7, 0].softmax(-1)
    assert ((out / exact - 1).abs() <= torch.finfo(dtype).eps).all()


def test_scale_comes_before_the_product():
    """float16 holds 32 · 128 · 128 only after the scale."""
    q = torch.full((1, 1, 1, 64), 40.0, dtype=torch.float16)
    k, v = (
        torch.full((1, 1, 2, 64), 40.0, dtype=torch.float16),
        torch.eye(2)[None, None],
    )
    k[:, :, 0] *= 0.5
    out = alibi_attention(q, k, v.half())
    assert out[0, 0, 0].tolist() == [0, 1]


def test_gradcheck():
    """Gradients agree with finite differences."""
    leaves = [torch.randn(1, 3, n, 2).double().requires_grad_() for n in (2, 3, 3)]
    assert torch.autograd.gradcheck(alibi_attention, leaves)


def test_bad_input_is_named():
    """What came and what was expected."""
    for heads in (0, -1):
        with pytest.raises(
            ValueError, match=f"^heads is {heads}, expected at least 1$"
        ):
            slopes(heads)
    wrong = "^T is 3, S is 2: queries are the last of the keys$"
    with pytest.raises(ValueError, match=wrong):
        alibi_bias(slopes(2), 3, 2)
    q = torch.randn(2, 3, 4, 8)
    with pytest.raises(ValueError, match=r"^T is 4, S is 3: queries are the last"):
        alibi_attention(q, q[:, :, 1:], q[:, :, 1:])
    with pytest.raises(ValueError, match=r"^key has size 7, query has size 8: they"):
        alibi_attention(q, q[..., 1:], q)
    with pytest.raises(
        ValueError, match=r"^keep has torch\.float32, expected torch\.bool$"
    ):
        alibi_attention(q, q, q, torch.ones(2, 4))
    wrong = r"^keep has shape \(1, 4\), expected \(2, 4\)$"
    with pytest.raises(ValueError, match=wrong):
        alibi_attention(q, q, q, torch.ones(1, 4, dtype=torch.bool))


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.positions.alibi").output
    for line in (
        " 8 heads: 0.5000 0.2500 0.1250 0.0625 0.0312 0.0156 0.0078 0.0039\n",
        "12 heads: 0.5000 0.2500 0.1250 0.0625 0.0312 0.0156 0.0078 0.0039 0.7071",
        "[-1.5000, -1.0000, -0.5000, -0.0000,  0.5000]",
        "S =  256: weight of the nearest 64 keys, slope 1/2 1.000, slope 1/256 0.395",
        "S = 4096: weight of the nearest 64 keys, slope 1/2 1.000, slope 1/256 0.258",
        "without bias 0.017",
        "length 1024: all queries 67108864 B, one query 65536 B",
        "one geometric row: 0.630 0.397 0.250",
        "the authors' code: 0.500 0.250 0.125",
        "bias over the cache (8, 1, 200): off by 0.00",
        "bias over the query (8, 1, 1): off by 0.98",
        "slope 1/2 gives the oldest key 0.39",
        "m · j      in bfloat16: a weight is off by 0.269",
        "-m (i - j) in bfloat16: a weight is off by 0.000",
    ):
        assert line in out
