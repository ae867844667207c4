"""Additive attention: equal to its definition, deaf to padding, and trainable."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snippets.foundations.additive import AdditiveAttention, saved_bytes
from snippets.properties.error_budget import error_budget, largest_error
from tests.running import run_main


# --8<-- [start:equals-loops]
def loops(module, q_BTD, k_BSK, v_BSV, mask_BTS):
    """Return the output from the definition, one pair after the other."""
    W_RD, U_RK, b_R = module.query.weight, module.key.weight, module.key.bias
    out_BTV = v_BSV.new_zeros(*mask_BTS.shape[:2], v_BSV.shape[-1])
    for b, t in mask_BTS.any(-1).nonzero().tolist():
        grade = {}
        for s in mask_BTS[b, t].nonzero().flatten().tolist():
            hidden_R = torch.tanh(W_RD @ q_BTD[b, t] + U_RK @ k_BSK[b, s] + b_R)
            grade[s] = math.exp((module.energy.weight[0] @ hidden_R).item())
        for s in grade:
            out_BTV[b, t] += grade[s] / sum(grade.values()) * v_BSV[b, s]
    return out_BTV


def test_equals_loops():
    """Equals an explicit double loop, in float32 and in float64."""
    for dtype in (torch.float32, torch.float64):
        module = AdditiveAttention(3, 5, 8).to(dtype)
        shapes = (2, 4, 3), (2, 6, 5), (2, 6, 7)
        tensors = [torch.randn(shape, dtype=dtype) for shape in shapes]
        mask_BTS = torch.rand(2, 4, 6) < 0.6
        result_BTV, _ = module(*tensors, mask_BTS)
        peer_BTV = loops(module, *tensors, mask_BTS)
        exact_BTV = loops(module.double(), *(x.double() for x in tensors), mask_BTS)
        error = largest_error(result_BTV, exact_BTV)
        allowed = error_budget(peer_BTV, exact_BTV, factor=2)
        print(f"{dtype}: error {error:.1e}, allowed {allowed:.1e}")
        assert error <= allowed


# --8<-- [end:equals-loops]


# --8<-- [start:equals-concat]
def test_equals_concat():
    """W q + U k is [W | U] applied to the concatenation [q; k]."""
    module = AdditiveAttention(3, 5, 8).double()
    q_BTD, k_BSK = torch.randn(2, 4, 3).double(), torch.randn(2, 6, 5).double()
    both_R8 = torch.cat((module.query.weight, module.key.weight), dim=1)
    q_BTS3 = q_BTD.unsqueeze(2).expand(2, 4, 6, 3)
    k_BTS5 = k_BSK.unsqueeze(1).expand(2, 4, 6, 5)
    pair_BTS8 = torch.cat((q_BTS3, k_BTS5), dim=-1)
    hidden_BTSR = torch.tanh(pair_BTS8 @ both_R8.T + module.key.bias)
    concat_BTS = module.energy(hidden_BTSR).squeeze(-1)
    error = largest_error(module.score(q_BTD, k_BSK), concat_BTS)
    allowed = error_budget(concat_BTS, concat_BTS)
    print(f"error {error:.1e}, allowed {allowed:.1e}")
    assert error <= allowed


# --8<-- [end:equals-concat]


# --8<-- [start:padding]
def test_nothing_leaks_from_padding():
    """Padding full of NaN or Inf: the unpadded output, and finite gradients."""
    module = AdditiveAttention(3, 5, 8).double()
    q_BTD, k_BSK = torch.randn(2, 4, 3).double(), torch.randn(2, 6, 5).double()
    v_BSV, mask_BTS = torch.randn(2, 6, 7).double(), torch.ones(2, 4, 6).bool()
    mask_BTS[..., 4:] = False
    short_BTV, _ = module(q_BTD, k_BSK[:, :4], v_BSV[:, :4])
    for poison in (math.nan, math.inf):
        k_BSK[:, 4:] = v_BSV[:, 4:] = poison
        out_BTV, weight_BTS = module(q_BTD, k_BSK, v_BSV, mask_BTS)
        assert largest_error(out_BTV, short_BTV) <= error_budget(short_BTV, short_BTV)
        assert (weight_BTS[..., 4:] == 0).all()
        out_BTV.sum().backward()
        assert all(x.grad.isfinite().all() for x in module.parameters())
    print("same output, finite gradients")


def test_blind_query_gets_zeros():
    """A query that may see nothing gets zeros, the others numbers, nobody NaN."""
    mask_BTS = torch.ones(2, 4, 6).bool()
    mask_BTS[1, 2] = False
    tensors = torch.randn(2, 4, 3), torch.randn(2, 6, 5), torch.randn(2, 6, 7)
    out_BTV, weight_BTS = AdditiveAttention(3, 5, 8)(*tensors, mask_BTS)
    assert ((out_BTV == 0).all(-1) == ~mask_BTS.any(-1)).all()
    print("sums of weights:", [f"{x:.6f}" for x in weight_BTS[1].sum(-1).tolist()])


# --8<-- [end:padding]


def test_gradients_agree_with_finite_differences():
    """Autograd and finite differences agree, for inputs and parameters alike."""
    module = AdditiveAttention(3, 5, 4).double()
    shapes = (2, 3, 3), (2, 4, 5), (2, 4, 2)
    inputs = [torch.randn(*x, dtype=torch.float64, requires_grad=True) for x in shapes]
    mask_BTS = torch.rand(2, 3, 4) < 0.7
    names = [name for name, _ in module.named_parameters()]

    def run(q_BTD, k_BSK, v_BSV, *values):
        parameters = dict(zip(names, values, strict=True))
        arguments = q_BTD, k_BSK, v_BSV, mask_BTS
        return torch.func.functional_call(module, parameters, arguments)

    assert torch.autograd.gradcheck(run, (*inputs, *module.parameters()))


sizes = st.integers(1, 5)


@given(sizes, sizes, sizes, st.integers(0, 2**31))
def test_weights_sum_to_one_or_zero(B, T, S, seed):
    """Every row of weights sums to one, or to zero where nothing may be seen."""
    torch.manual_seed(seed)
    module = AdditiveAttention(2, 3, 4).double()
    q_BTD, k_BSK = torch.randn(B, T, 2).double(), torch.randn(B, S, 3).double()
    mask_BTS = torch.rand(B, T, S) < 0.5
    _, weight_BTS = module(q_BTD, k_BSK, k_BSK, mask_BTS)
    assert (weight_BTS >= 0).all()
    assert (weight_BTS[~mask_BTS] == 0).all()
    exact_BT = mask_BTS.any(-1).double()
    assert largest_error(weight_BTS.sum(-1), exact_BT) <= error_budget(
        exact_BT, exact_BT
    )


@given(sizes, sizes, sizes, st.integers(0, 2**31))
def test_order_of_keys_does_not_matter(B, T, S, seed):
    """Permuting keys, values and mask together leaves the output, moves the weights."""
    torch.manual_seed(seed)
    module = AdditiveAttention(2, 3, 4).double()
    q_BTD, k_BSK = torch.randn(B, T, 2).double(), torch.randn(B, S, 3).double()
    v_BSV, mask_BTS = torch.randn(B, S, 2).double(), torch.rand(B, T, S) < 0.7
    order_S = torch.randperm(S)
    out_BTV, weight_BTS = module(q_BTD, k_BSK, v_BSV, mask_BTS)
    moved_BTV, moved_BTS = module(
        q_BTD, k_BSK[:, order_S], v_BSV[:, order_S], mask_BTS[..., order_S]
    )
    one = torch.ones(1).double()
    assert largest_error(moved_BTS, weight_BTS[..., order_S]) <= error_budget(one, one)
    # Sums of a few values: the error grows with the values summed, not their sum.
    assert largest_error(moved_BTV, out_BTV) <= error_budget(v_BSV, v_BSV)


def test_order_matters_when_keys_and_values_part():
    """The permutation test can fail: values left behind change the output."""
    module = AdditiveAttention(2, 3, 4)
    q_BTD, k_BSK, v_BSV = (
        torch.randn(1, 2, 2),
        torch.randn(1, 5, 3),
        torch.randn(1, 5, 2),
    )
    out_BTV, _ = module(q_BTD, k_BSK, v_BSV)
    moved_BTV, _ = module(q_BTD, k_BSK.flip(1), v_BSV)
    assert largest_error(moved_BTV, out_BTV.double()) > 1e3 * error_budget(
        out_BTV, out_BTV.double()
    )


def test_padded_queries_do_not_poison_gradients():
    """A query that sees nothing may hold NaN: the gradients stay finite."""
    module = AdditiveAttention(3, 5, 8)
    q_BTD = torch.randn(2, 4, 3)
    q_BTD[:, 3] = math.nan
    mask_BTS = (torch.arange(4) < 3).unsqueeze(-1).expand(2, 4, 6)
    out_BTV, _ = module(q_BTD, torch.randn(2, 6, 5), torch.randn(2, 6, 7), mask_BTS)
    out_BTV.sum().backward()
    assert out_BTV.isfinite().all()
    assert all(p.grad.isfinite().all() for p in module.parameters())


def test_large_scores_do_not_overflow():
    """Scores of ±1000 give weights of one and zero, not NaN."""
    module = AdditiveAttention(1, 1, 1)
    for linear, value in (
        (module.query, 0.0),
        (module.key, 10.0),
        (module.energy, 1e3),
    ):
        torch.nn.init.constant_(linear.weight, value)
    torch.nn.init.zeros_(module.key.bias)
    k_BSK = torch.tensor([[[-1.0], [1.0], [-1.0]]])
    _, weight_BTS = module(torch.zeros(1, 1, 1), k_BSK, k_BSK)
    assert weight_BTS.tolist() == [[[0.0, 1.0, 0.0]]]


def test_bias_on_the_energy_would_be_idle():
    """Softmax ignores a constant added to every score, hence no bias on v."""
    score_TS, upstream_TS = torch.randn(2, 3, 5, dtype=torch.float64)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (torch.softmax(score_TS + bias, dim=-1) * upstream_TS).sum().backward()
    assert bias.grad.abs().item() <= error_budget(upstream_TS, upstream_TS)


def test_half_precision_is_finite():
    """Float16 and bfloat16 pass through and keep their dtype."""
    for dtype in (torch.float16, torch.bfloat16):
        module = AdditiveAttention(3, 5, 8).to(dtype)
        tensors = [torch.randn(2, 4, size).to(dtype) * 100 for size in (3, 5, 7)]
        out_BTV, _ = module(*tensors)
        assert out_BTV.dtype == dtype
        assert out_BTV.isfinite().all()


def test_autograd_keeps_a_number_for_each_tanh():
    """The hidden layer alone is B·T·S·R numbers, and it is kept for backward."""
    module = AdditiveAttention(3, 3, 16)
    x_BTD = torch.randn(2, 9, 3)
    kept = saved_bytes(lambda: module.score(x_BTD, x_BTD))
    assert 4 * 2 * 9 * 9 * 16 <= kept <= 1.2 * 4 * 2 * 9 * 9 * 16


GOOD = {"query": (2, 4, 3), "key": (2, 6, 5), "value": (2, 6, 7), "mask": (2, 4, 6)}


@pytest.mark.parametrize(
    ("argument", "shape", "words"),
    [
        ("query", (2, 4, 5), "query has shape (2, 4, 5), expected (2, 4, 3)"),
        ("key", (2, 6, 3), "key has shape (2, 6, 3), expected (2, 6, 5)"),
        ("query", (4, 3), "query has shape (4, 3), expected 3 axes"),
        ("value", (2, 5, 7), "value has shape (2, 5, 7), expected (2, 6, 7)"),
        ("key", (1, 6, 5), "key has shape (1, 6, 5), expected (2, 6, 5)"),
        ("mask", (2, 1, 6), "mask has shape (2, 1, 6), expected (2, 4, 6)"),
    ],
)
def test_bad_sizes_are_named(argument, shape, words):
    """A ValueError says which argument, what came and what was expected."""
    tensors = {name: torch.ones(*size) for name, size in GOOD.items()}
    tensors[argument] = torch.ones(*shape)
    tensors["mask"] = tensors["mask"].bool()
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        AdditiveAttention(3, 5, 8)(*tensors.values())
    assert words in str(caught.value)


def test_mask_must_be_boolean():
    """A float mask would be read as -inf or as a factor elsewhere: refuse it."""
    tensors = [torch.ones(*size) for size in GOOD.values()]
    with pytest.raises(ValueError, match=r"mask is torch.float32, expected torch.bool"):
        AdditiveAttention(3, 5, 8)(*tensors)


def test_page_numbers():
    """The numbers that the page quotes are the ones that the demonstration prints."""
    result = run_main("snippets.foundations.additive")
    for line in (
        "parameters: 33024 against 32768",
        "T = S = 128:  32.25 MiB against 0.75 MiB",
        "largest weight at [7, 6, 5, 4, 3, 2, 1, 0]",
        "dim=1: ['1.00', '1.00', '1.00', '1.00', '1.00']",
        "mask: weight on padding ['0.00', '0.00', '0.00']",
        "repeat:            state [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]",
        "Expected size 2 but got size 5",
    ):
        assert line in result.output
    careless_BTS = result.names["careless_BTS"]
    assert (careless_BTS[1, :, 3:].sum(-1) > 0.3).all()
    assert result.names["align_88"].amax(-1).min() > 0.95
