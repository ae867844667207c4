"""T5's bucketed bias: whole-number loops, PyTorch's kernel and T5 itself as oracles."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from snippets.positions.bucketed_bias import biased_attend, bucket, relative_bias
from snippets.properties.cost import count_flops
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import (
    batch_independence,
    cached_equals_full,
    causality,
    gradient_flow,
    no_input_mutated,
    padding_invariance,
)
from tests.running import run_main


# --8<-- [start:equals-loops]
def naive_bucket(distance, count, far, causal):
    """Find the bucket with whole numbers only, so that nothing is rounded."""
    own = count if causal else count // 2
    size = max(0, -distance) if causal else abs(distance)
    exact = own // 2
    found, steps = min(size, exact), own - exact
    # size ≥ exact · (far / exact)^(n / steps), raised to the power of `steps`
    for n in range(1, steps):
        if size**steps >= exact ** (steps - n) * far**n:
            found = exact + n
    return found + (0 if causal or distance <= 0 else own)


def test_equals_whole_numbers():
    """Every distance up to 3000 both ways, for T5's layout and for others."""
    distance = torch.arange(-3000, 3001).unsqueeze(0)
    for count, far in ((32, 128), (8, 20), (64, 512), (4, 100)):
        for causal in (False, True):
            expected = [naive_bucket(d, count, far, causal) for d in range(-3000, 3001)]
            assert bucket(distance, count, far, causal)[0].tolist() == expected
        print(f"{count} buckets up to {far}: 6001 distances agree, both layouts")


# --8<-- [end:equals-loops]


# --8<-- [start:equals-sdpa]
def test_equals_sdpa_with_scale_one():
    """The bias is an additive mask, the scale is 1; gradients reach the table."""
    q, k, v = (torch.randn(2, 4, n, 8, dtype=torch.float64) for n in (3, 7, 7))
    table = torch.randn(32, 4, dtype=torch.float64, requires_grad=True)
    bias = relative_bias(table, 3, 7)
    ours = biased_attend(q, k, v, bias)
    theirs = F.scaled_dot_product_attention(q, k, v, bias, scale=1.0)
    torch.testing.assert_close(ours, theirs)
    grads = [
        torch.autograd.grad(o.square().sum(), table, retain_graph=True)[0]
        for o in (ours, theirs)
    ]
    torch.testing.assert_close(*grads)
    used = grads[0].abs().sum(1).count_nonzero().item()
    print(f"equal; {used} of 32 buckets occur at lengths 3 and 7 and get a gradient")


# --8<-- [end:equals-sdpa]


# --8<-- [start:cache]
def test_cached_steps_equal_the_full_pass():
    """The bias of one newest query is the last row of the bias of all."""
    table = torch.randn(32, 4)
    for causal in (False, True):
        full = relative_bias(table, 300, 300, causal=causal)
        for n in (1, 2, 9, 300):
            step = relative_bias(table, 1, n, causal=causal)
            assert step.equal(full[:, n - 1 : n, :n])
            static = relative_bias(table, 1, 300, causal=causal, start=n - 1)
            assert static.equal(full[:, n - 1 : n])
    print("steps 1, 2, 9, 300: growing and preallocated cache equal the full bias")


# --8<-- [end:cache]


@given(
    distance=st.integers(-(10**6), 10**6),
    own=st.sampled_from([2, 4, 6, 10, 16, 32]),
    more=st.integers(1, 500),
    causal=st.booleans(),
)
def test_bucket_of_any_layout(distance, own, more, causal):
    """Whole numbers again, on layouts that nobody uses."""
    count, far = own * (1 if causal else 2), own // 2 + more
    found = bucket(torch.tensor([[distance]]), count, far, causal).item()
    assert found == naive_bucket(distance, count, far, causal)
    assert 0 <= found < count


def test_buckets_equal_t5():
    """Against the function of `transformers`, in both layouts."""
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-2000, 2001).unsqueeze(0)
    for causal in (False, True):
        theirs = T5Attention._relative_position_bucket(distance, not causal, 32, 128)
        assert bucket(distance, causal=causal).equal(theirs)


@pytest.mark.parametrize("decoder", [False, True])
def test_equals_t5_attention(decoder):
    """T5's own layer with our bias and our attention between its projections."""
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Attention

    config = T5Config(
        d_model=16, d_kv=4, num_heads=4, is_decoder=decoder, dropout_rate=0.0
    )
    config._attn_implementation = "eager"
    theirs = T5Attention(config, has_relative_attention_bias=True, layer_idx=0).eval()
    x = torch.randn(2, 40, 16)
    q, k, v = (
        to(x).unflatten(2, (4, 4)).transpose(1, 2)
        for to in (theirs.q, theirs.k, theirs.v)
    )
    table = theirs.relative_attention_bias.weight
    bias = relative_bias(table, 40, 40, causal=decoder)
    ours = theirs.o(biased_attend(q, k, v, bias).transpose(1, 2).flatten(2))
    out, their_bias, _ = theirs(x)
    torch.testing.assert_close(bias, their_bias[0])
    torch.testing.assert_close(ours, out)
    late = theirs.compute_bias(1, 40, past_seen_tokens=39)[0]
    torch.testing.assert_close(relative_bias(table, 1, 40, causal=decoder), late)


def test_layout_of_t5():
    """Single distances up to 7 or 15, one bucket from the last edge on."""
    assert bucket(torch.tensor([[-7, -8, -11, -12, -90, -91]])).tolist() == [
        [7, 8, 8, 9, 14, 15]
    ]
    assert bucket(torch.tensor([[0, 1, 8, 91]])).tolist() == [[0, 17, 24, 31]]
    assert bucket(torch.tensor([[-15, -16, -18, -19, 0, 5]]), causal=True).tolist() == [
        [15, 16, 16, 17, 0, 0]
    ]
    assert len(bucket(torch.arange(-500, 501)[None]).unique()) == 31
    assert len(bucket(torch.arange(-500, 1)[None], causal=True).unique()) == 32


def test_bias_depends_on_distance_and_head():
    """Constant along diagonals, another number for each head."""
    table = torch.arange(64.0).reshape(32, 2)
    bias = relative_bias(table, 4, 4)
    assert bias.shape == (2, 4, 4)
    assert bias[1].equal(bias[0] + 1)
    assert bias[0, 1:, 1:].equal(bias[0, :-1, :-1])
    assert bias[0, 2].tolist() == [4, 2, 0, 34]
    assert relative_bias(table, 1, 300, far=256)[0, 0, 0] == 2 * 15
    assert relative_bias(table, 1, 100, far=256)[0, 0, 0] == 2 * 13
    assert relative_bias(table, 5, 2)[0, :, 0].tolist() == [38, 36, 34, 0, 2]


def test_kit_properties():
    """Causality, padding, caches, samples, gradients, inputs."""
    table = torch.randn(8, 1, dtype=torch.float64)

    def attend(x, keep=None, keys=None, causal=False):
        y = x if keys is None else keys
        B, T, S = len(x), x.shape[1], y.shape[1]
        mask = torch.ones(B, 1, T, S, dtype=torch.bool)
        mask = mask.tril(S - T) if causal else mask
        mask = mask if keep is None else mask & keep[:, None, None]
        bias = relative_bias(table, T, S, far=6, causal=causal)
        return biased_attend(*(z[:, None] for z in (x, y, y)), bias, mask)[:, 0]

    def step(piece, cache):
        cache = piece if cache is None else torch.cat([cache, piece], 1)
        return attend(piece, keys=cache, causal=True), cache

    def run(draw):
        x = draw.normal(draw.size("B", 1, 3), draw.size("T", 1, 6), 4)
        causality(lambda x: attend(x, causal=True), x, draw)
        padding_invariance(attend, x, draw)
        batch_independence(attend, x, draw)
        no_input_mutated(attend, x)
        cached_equals_full(lambda x: attend(x, causal=True), step, x, draw)

    hold(run)
    shapes = (1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4), (2, 3, 3)
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    gradient_flow(biased_attend, *inputs)


def test_fully_masked_rows_are_zero():
    """Even with a bias; gradients stay finite."""
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    table = torch.randn(32, 2, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(1, 2, 3, 3, dtype=torch.bool)
    mask[0, 1, 2] = False
    out = biased_attend(x, x, x, relative_bias(table, 3, 3), mask)
    assert out[0, 1, 2].eq(0).all()
    assert out[0, 0].ne(0).all()
    grads = torch.autograd.grad(out.square().sum(), (x, table))
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_nan_behind_the_mask_stays_there(poison):
    """Masked keys and values and blind queries reach neither output nor gradient."""
    q, k, v = torch.randn(3, 1, 2, 4, 4, dtype=torch.float64)
    bias = torch.randn(2, 4, 4, dtype=torch.float64)
    mask = torch.ones(1, 2, 4, 4, dtype=torch.bool)
    mask[..., 1] = False
    mask[:, :, 3] = False
    clean = biased_attend(q, k, v, bias, mask)
    k[:, :, 1], v[:, :, 1], q[:, :, 3] = poison, poison, poison
    inputs = [one.requires_grad_() for one in (q, k, v, bias)]
    out = biased_attend(*inputs, mask)
    torch.testing.assert_close(out, clean)
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_error_budget(dtype):
    """No worse than the plain form in the same dtype."""
    q, k, v = (torch.randn(2, 2, 40, 16).to(dtype) / 2 for _ in range(3))
    bias = relative_bias(torch.randn(32, 2).to(dtype), 40, 40)
    assert bias.dtype == dtype
    exact = F.scaled_dot_product_attention(
        *(one.double() for one in (q, k, v, bias)), scale=1.0
    )
    peer = torch.softmax(q @ k.mT + bias, -1) @ v
    ours = biased_attend(q, k, v, bias)
    assert ours.dtype == dtype
    assert largest_error(ours, exact) <= error_budget(peer, exact)


def test_huge_bias():
    """A bias of ±1e4 picks one key without overflow."""
    x = torch.randn(1, 1, 1, 4)
    v = torch.randn(1, 1, 5, 4)
    bias = torch.full((1, 1, 5), -1e4)
    bias[0, 0, 3] = 1e4
    out = biased_attend(x, v, v, bias)
    torch.testing.assert_close(out[0, 0, 0], v[0, 0, 3])


def test_gradcheck():
    """Gradients agree with finite differences, buckets used twice included."""
    q, k, v = torch.randn(3, 1, 2, 3, 2, dtype=torch.float64)
    table = torch.randn(8, 2, dtype=torch.float64)
    inputs = [one.requires_grad_() for one in (q, k, v, table)]
    assert torch.autograd.gradcheck(
        lambda q, k, v, table: biased_attend(
            q, k, v, relative_bias(table, 3, 3, far=6)
        ),
        inputs,
    )


def test_non_contiguous_input():
    """Heads cut from a last axis are read as they stand."""
    q, k, v = torch.randn(3, 2, 2, 3, 4, dtype=torch.float64)
    bias = torch.randn(3, 2, 3, dtype=torch.float64).transpose(0, 1)
    theirs = biased_attend(q, k, v, bias.contiguous())
    q, k, v = (o.transpose(1, 2).contiguous().transpose(1, 2) for o in (q, k, v))
    torch.testing.assert_close(biased_attend(q, k, v, bias), theirs)


def test_no_matrix_products():
    """The bias is a lookup."""
    assert count_flops(lambda: relative_bias(torch.randn(32, 2), 9, 9)) == 0


def test_bad_input_is_named():
    """What came and what was expected."""
    one = torch.zeros(1, 1, dtype=torch.long)
    for count, causal, of in (
        (30, False, 4),
        (0, False, 4),
        (31, True, 2),
        (0, True, 2),
    ):
        with pytest.raises(
            ValueError,
            match=rf"^count is {count}, expected a positive multiple of {of}$",
        ):
            bucket(one, count, causal=causal)
    for far, causal, least in ((8, False, 8), (16, True, 16), (3, True, 16)):
        with pytest.raises(
            ValueError, match=rf"^far is {far}, expected more than {least}$"
        ):
            bucket(one, 32, far, causal)
    assert bucket(one, 32, 9).item() == bucket(one, 32, 17, causal=True).item() == 0
    assert bucket(one, 4, 2).item() == bucket(one, 2, 2, causal=True).item() == 0
    with pytest.raises(ValueError, match=r"^table has 1 axes, expected 2$"):
        relative_bias(torch.zeros(32), 2, 2)
    with pytest.raises(ValueError, match=r"^start is -1, expected at least 0$"):
        relative_bias(torch.zeros(32, 2), 2, 2, start=-1)
    x = torch.zeros(1, 2, 3, 4)
    for shape in ((2, 3, 4), (1, 3, 3), (3, 3)):
        with pytest.raises(
            ValueError, match=r"^bias has shape \(.*\), expected \(2, 3, 3\)$"
        ):
            biased_attend(x, x, x, torch.zeros(shape))
    with pytest.raises(ValueError, match="key has size 3, query has size 4"):
        biased_attend(x, x[..., :3], x, torch.zeros(2, 3, 3))
    with pytest.raises(ValueError, match=r"mask has shape \(3, 3\), expected"):
        biased_attend(x, x, x, torch.zeros(2, 3, 3), torch.ones(3, 3).bool())


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.positions.bucketed_bias").output
    both = "    0     1     7     8     8     9    15    15    15    17    24    31"
    past = "    0     1     7     8    11    12    29    31    31     0     0     0"
    assert f"both ways  {both}" in out
    assert f"causal     {past}" in out
    assert "begin at 0 1 2 3 4 5 6 7 8 12 16 23 32 46 64 91\n" in out
    assert "15 16 19 21 24 27 31 35 40 46 52 59 67 77 87 99 113\n" in out
    assert "FLOPs in matrix products: 0, parameters: 256" in out
    assert "bias of 8 heads at length 512 in float32: 8 MiB" in out
    assert "counted from 0: off by 0.81" in out
    assert "counted from the cache: off by 0.00" in out
    assert "distance -127: bucket 15 without a limit, 15 with" in out
    assert "distance -128: bucket 16 without a limit, 15 with" in out
    assert "distance -2000: bucket 23 without a limit, 15 with" in out
    assert "SDPA, scale default: off by 1.29" in out
    assert "SDPA, scale 1.0: off by 0.00" in out
