"""Hard attention: exact draws, unbiased gradients, and look-alikes told apart."""

import math

# --8<-- [start:imports]
from fractions import Fraction

# --8<-- [end:imports]
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from snippets.foundations.hard import (
    expected_loss,
    gradients,
    gumbel_choice,
    hard_attend,
    reinforce,
    straight_through,
    threshold,
    top_k,
    unique_hard,
)
from snippets.properties.error_budget import error_budget, largest_error
from tests.running import run_main


# --8<-- [start:unbiased]
def test_reinforce_is_unbiased_whatever_the_baseline():
    """Summed over every draw with its probability, the estimate is the gradient."""
    weight, loss = [Fraction(n, 10) for n in (4, 3, 2, 1)], [9, 5, 10, 1]
    mean_loss = sum(weight[s] * loss[s] for s in range(4))
    for baseline in (0, mean_loss, -7):
        variance = 0
        for i in range(4):
            # What a draw of s adds at score i: (loss - baseline) ∇ log weight.
            add = [(loss[s] - baseline) * ((s == i) - weight[i]) for s in range(4)]
            mean = sum(weight[s] * add[s] for s in range(4))
            assert mean == weight[i] * (loss[i] - mean_loss)
            variance += sum(weight[s] * (add[s] - mean) ** 2 for s in range(4))
        print(f"baseline {float(baseline)}: variance {float(variance):.2f}")


# --8<-- [end:unbiased]


def test_each_draw_adds_what_the_formula_says():
    """Each estimate is (loss - baseline) times one-hot minus weight, for some draw."""
    score_S, v_SV, loss_of = toy(2)
    weight_S = torch.softmax(score_S.double(), dim=-1)
    loss_S = loss_of(v_SV.unsqueeze(0))[0].double()
    for baseline in (0.0, 3.0):
        scale_S1 = (loss_S - baseline).unsqueeze(1)
        draw_SS = scale_S1 * (torch.eye(5).double() - weight_S)
        grad_BS = gradients(reinforce, score_S, v_SV, loss_of, baseline, 200).double()
        row_B = (grad_BS.unsqueeze(1) - draw_SS).abs().amax(-1).argmin(-1)
        assert len(set(row_B.tolist())) > 1
        allowed = error_budget(scale_S1.float(), scale_S1)
        assert largest_error(grad_BS, draw_SS[row_B]) <= allowed


def test_a_baseline_with_the_own_loss_in_it_is_biased():
    """Over all pairs of draws, the mean of the pair as baseline halves the gradient."""
    weight, loss = [Fraction(n, 10) for n in (4, 3, 2, 1)], [9, 5, 10, 1]
    mean_loss = sum(weight[s] * loss[s] for s in range(4))
    exact = [weight[i] * (loss[i] - mean_loss) for i in range(4)]
    pairs = list(product(range(4), repeat=2))
    for baseline, share in (
        (lambda s, t: Fraction(loss[s] + loss[t], 2), Fraction(1, 2)),
        (lambda s, t: loss[t], 1),
    ):
        mean = [
            sum(
                weight[s]
                * weight[t]
                * (loss[s] - baseline(s, t))
                * ((s == i) - weight[i])
                for s, t in pairs
            )
            for i in range(4)
        ]
        assert mean == [share * x for x in exact]


def toy(seed):
    """Return scores (S), values (S, V) and a loss that is not linear."""
    torch.manual_seed(seed)
    score_S, v_SV, target_V = torch.randn(5), torch.randn(5, 3), torch.randn(3)
    return score_S, v_SV, lambda out_BTV: (out_BTV - target_V).square().sum(-1)


def exact_gradient(score_S, v_SV, loss_of):
    """Return the gradient of the expected loss, by the formula, and that loss."""
    weight_S = torch.softmax(score_S.double(), dim=-1)
    loss_S = loss_of(v_SV.unsqueeze(0))[0].double()
    return weight_S * (loss_S - weight_S @ loss_S), (weight_S @ loss_S).item()


def test_expected_loss_enumerates_every_key():
    """The enumeration and its gradient agree with the formula."""
    score_S, v_SV, loss_of = toy(1)
    exact_S, exact = exact_gradient(score_S, v_SV, loss_of)
    leaf_11S = score_S.view(1, 1, 5).requires_grad_()
    loss_11 = expected_loss(leaf_11S, v_SV.unsqueeze(0), loss_of)
    loss_11.sum().backward()
    loss_S = loss_of(v_SV.unsqueeze(0))
    assert abs(loss_11.item() - exact) <= error_budget(loss_S, loss_S.double())
    allowed = error_budget(loss_S, loss_S.double())
    assert largest_error(leaf_11S.grad.flatten(), exact_S) <= allowed


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("with_baseline", [False, True])
def test_reinforce_estimates_the_gradient(seed, with_baseline):
    """The mean of 100,000 draws is within 5 standard errors of the exact gradient."""
    score_S, v_SV, loss_of = toy(seed)
    exact_S, exact = exact_gradient(score_S, v_SV, loss_of)
    setting = exact if with_baseline else 0.0
    grad_BS = gradients(reinforce, score_S, v_SV, loss_of, setting, 100_000).double()
    error_S = grad_BS.std(0) / math.sqrt(100_000)
    assert ((grad_BS.mean(0) - exact_S).abs() <= 5 * error_S).all()
    assert (error_S > 0).all()


def test_baseline_lowers_the_variance():
    """The mean loss as baseline cuts the variance, here by more than half."""
    score_S, v_SV, loss_of = toy(0)
    _, exact = exact_gradient(score_S, v_SV, loss_of)
    without, with_it = (
        gradients(reinforce, score_S, v_SV, loss_of, b, 20_000).var(0).sum().item()
        for b in (0.0, exact)
    )
    assert with_it < 0.5 * without


def test_straight_through_is_biased():
    """Straight-through misses the gradient by far more than chance allows."""
    score_S, v_SV, loss_of = toy(0)
    exact_S, _ = exact_gradient(score_S, v_SV, loss_of)
    grad_BS = gradients(straight_through, score_S, v_SV, loss_of, 1.0, 100_000)
    error_S = grad_BS.std(0) / math.sqrt(100_000)
    assert ((grad_BS.mean(0) - exact_S).abs() / error_S).max() > 20


def test_reinforce_reaches_the_values_without_bias():
    """Values get weight times the gradient of the loss at them, within 5 errors."""
    score_S, v_SV, loss_of = toy(0)
    B = 50_000
    v_BSV = v_SV.expand(B, 5, 3).clone().requires_grad_()
    surrogate_B1, _ = reinforce(score_S.expand(B, 1, 5), v_BSV, loss_of, 1.0)
    (grad_BSV,) = torch.autograd.grad(surrogate_B1.sum(), v_BSV)
    leaf_SV = v_SV.clone().requires_grad_()
    loss_S = loss_of(leaf_SV.unsqueeze(0))[0]
    (torch.softmax(score_S, dim=-1) * loss_S).sum().backward()
    error_SV = grad_BSV.std(0) / math.sqrt(B)
    assert ((grad_BSV.mean(0) - leaf_SV.grad).abs() <= 5 * error_SV).all()


def test_draws_follow_the_weights():
    """The frequency of each key is within 5 standard errors of its weight."""
    B, score_S = 100_000, torch.tensor([2.0, 0.0, -1.0, 1.0])
    weight_S = torch.softmax(score_S, dim=-1)
    for choice_B1S in (
        hard_attend(score_S.expand(B, 1, 4), torch.zeros(B, 4, 1))[1],
        gumbel_choice(score_S.expand(B, 1, 4), 1.0),
        gumbel_choice(score_S.expand(B, 1, 4), 0.1),
    ):
        error_S = (weight_S * (1 - weight_S) / B).sqrt()
        assert ((choice_B1S.mean((0, 1)) - weight_S).abs() <= 5 * error_S).all()


def test_log_chance_is_the_log_softmax_of_the_choice():
    """The third result and its gradient agree with log_softmax."""
    score_BTS = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    _, choice_BTS, log_chance_BT = hard_attend(score_BTS, torch.randn(3, 5, 2).double())
    expected_BT = (F.log_softmax(score_BTS, dim=-1) * choice_BTS).sum(-1)
    allowed = error_budget(expected_BT, expected_BT)
    assert largest_error(log_chance_BT, expected_BT) <= allowed
    (grad_BTS,) = torch.autograd.grad(log_chance_BT.sum(), score_BTS)
    exact_BTS = choice_BTS - torch.softmax(score_BTS, dim=-1)
    assert largest_error(grad_BTS, exact_BTS) <= error_budget(exact_BTS, exact_BTS)


def test_gumbel_choice_equals_pytorch():
    """Same seed, same draw and same gradient as F.gumbel_softmax(hard=True)."""
    score_BTS, up_BTS = torch.randn(2, 8, 4, 6)
    score_BTS.requires_grad_()
    results = []
    for choose in (
        lambda: gumbel_choice(score_BTS, 0.7),
        lambda: F.gumbel_softmax(score_BTS, tau=0.7, hard=True),
    ):
        torch.manual_seed(5)
        choice_BTS = choose()
        (grad_BTS,) = torch.autograd.grad((choice_BTS * up_BTS).sum(), score_BTS)
        results.append((choice_BTS, grad_BTS))
    for mine, theirs in zip(*results, strict=True):
        theirs = theirs.double()
        assert largest_error(mine, theirs) <= error_budget(theirs.float(), theirs)


sizes = st.integers(1, 5)


@given(sizes, sizes, sizes, st.integers(0, 2**31))
def test_one_visible_key_per_row(B, T, S, seed):
    """Every row picks one visible key and returns its value; a blind row, zeros."""
    torch.manual_seed(seed)
    score_BTS, v_BSV = torch.randn(B, T, S), torch.randn(B, S, 3)
    mask_BTS = torch.rand(B, T, S) < 0.6
    out_BTV, choice_BTS, log_chance_BT = hard_attend(score_BTS, v_BSV, mask_BTS)
    seen_BT = mask_BTS.any(-1)
    assert (choice_BTS.sum(-1) == seen_BT).all()
    assert ((choice_BTS == 0) | (choice_BTS == 1)).all()
    assert (choice_BTS[~mask_BTS] == 0).all()
    assert (choice_BTS @ v_BSV == out_BTV).all()
    assert (log_chance_BT <= 0).all()
    assert (log_chance_BT[~seen_BT] == 0).all()


def test_nothing_leaks_from_behind_the_mask():
    """Scores and values of NaN or Inf behind the mask reach neither output nor grad."""
    for poison in (math.nan, math.inf, -math.inf):
        score_BTS, v_BSV = torch.randn(2, 50, 6), torch.randn(2, 6, 3)
        score_BTS[..., 4:], v_BSV[:, 4:] = poison, poison
        score_BTS.requires_grad_()
        mask_BTS = (torch.arange(6) < 4).expand(2, 50, 6).clone()
        mask_BTS[0, 0] = False
        out_BTV, _, log_chance_BT = hard_attend(score_BTS, v_BSV, mask_BTS)
        log_chance_BT.sum().backward()
        assert out_BTV.isfinite().all()
        assert score_BTS.grad.isfinite().all()
        assert (score_BTS.grad[..., 4:] == 0).all()


def test_argmax_threshold_and_draw_give_scores_no_gradient():
    """None of the three discrete choices is connected to the scores; top-k is."""
    score_S = torch.randn(5, requires_grad=True)
    v_SV = torch.randn(5, 3)
    assert not threshold(score_S, 0.2).requires_grad
    assert not unique_hard(score_S).requires_grad
    assert not hard_attend(score_S.view(1, 1, 5), v_SV.unsqueeze(0))[0].requires_grad
    (grad_S,) = torch.autograd.grad((top_k(score_S, 2) @ v_SV).sum(), score_S)
    assert (grad_S != 0).sum() == 2


def test_look_alikes_differ():
    """Threshold does not sum to one, argmax takes the leftmost, top-k renormalizes."""
    score_S = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    assert threshold(score_S, 0.25).tolist() == [1, 1, 0, 0]
    assert threshold(torch.zeros(2), 0.5).tolist() == [1, 1]
    assert threshold(score_S, 0.5).tolist() == [0, 0, 0, 0]
    assert unique_hard(score_S).tolist() == [1, 0, 0, 0]
    assert unique_hard(torch.tensor([1.0, 3.0, 3.0])).tolist() == [0, 1, 0]
    exact_S = torch.tensor([4 / 7, 3 / 7, 0, 0], dtype=torch.float64)
    assert largest_error(top_k(score_S, 2), exact_S) <= error_budget(
        exact_S.float(), exact_S
    )


def test_the_reward_must_be_detached():
    """Without detach the values get gradients along another direction."""
    score_S, v_SV, loss_of = toy(0)
    value_1SV = v_SV.unsqueeze(0).requires_grad_()
    loss_S = loss_of(value_1SV)[0]
    weight_S = torch.softmax(score_S, dim=-1)
    (exact_1SV,) = torch.autograd.grad(weight_S @ loss_S, value_1SV, retain_graph=True)
    for scale_S, faithful in ((loss_S.detach(), True), (loss_S, False)):
        # The expectation of the surrogate's gradient, over every draw.
        mean = weight_S.detach() @ (scale_S * weight_S.log() + loss_S)
        (mean_1SV,) = torch.autograd.grad(mean, value_1SV, retain_graph=True)
        allowed = error_budget(exact_1SV, exact_1SV.double())
        assert (largest_error(mean_1SV, exact_1SV.double()) <= allowed) == faithful


def test_bad_sizes_are_named():
    """A ValueError says which argument, what came and what was expected."""
    score_BTS = torch.zeros(2, 4, 6)
    with pytest.raises(ValueError, match=r"value has shape \(2, 5, 3\)"):
        hard_attend(score_BTS, torch.zeros(2, 5, 3))
    with pytest.raises(
        ValueError, match=r"mask has shape \(2, 1, 6\), expected \(2, 4"
    ):
        hard_attend(score_BTS, torch.zeros(2, 6, 3), torch.ones(2, 1, 6).bool())


def test_page_numbers():
    """The facts that the page states are those that the demonstration prints."""
    result = run_main("snippets.foundations.hard")
    report, curves = result.names["report"], result.names["curves"]
    assert report["REINFORCE"][0] < 5
    assert report["REINFORCE, baseline"][0] < 5
    assert report["straight-through, τ = 1"][0] > 100
    assert report["straight-through, τ = 0.2"][0] > 5
    assert report["REINFORCE"][1] == pytest.approx(37.9, rel=0.05)
    assert report["REINFORCE, baseline"][1] == pytest.approx(5.65, rel=0.05)
    assert report["REINFORCE"][2] == pytest.approx(2300, rel=0.05)
    assert report["REINFORCE, baseline"][2] == pytest.approx(340, rel=0.05)
    assert curves["REINFORCE"][50] < curves["REINFORCE, baseline"][50]
    assert min(curve[149] for curve in curves.values()) > 0.9
    assert max(curve[0] for curve in curves.values()) == pytest.approx(1 / 8)
    for line in (
        "gradient at the scores: None",
        "FLOPs, soft: 536870912",
        "FLOPs, hard: 268435456",
        "expected loss of hard attention: 7.200",
        "loss of soft attention: 5.800",
        "exact gradient ['0.720', '-0.660', '0.560', '-0.620']",
        "soft            ['0.40', '0.30', '0.20', '0.10'] sum 1.00",
        "does not require grad and does not have a grad_fn",
        "threshold 0.25  ['1.00', '1.00', '0.00', '0.00'] sum 2.00",
        "threshold 0.5   ['0.00', '0.00', '0.00', '0.00'] sum 0.00",
    ):
        assert line in result.output
