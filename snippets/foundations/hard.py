"""Hard attention: look at one place, drawn from the attention weights."""

# --8<-- [start:imports]
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# --8<-- [end:imports]
from snippets.foundations.scaled_dot_product import masked_softmax


# --8<-- [start:hard-attend]
def hard_attend(
    score_BTS: Tensor, v_BSV: Tensor, mask_BTS: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one key per query from the softmax of its scores (Xu et al. 2015, §4.1).

    Returns the values drawn (B, T, V), the choice as one-hot rows (B, T, S) and the
    log-probability of each choice in nats (B, T). A query that may see no key gets
    zeros. Raises ValueError when sizes disagree.
    """
    B, T, S = score_BTS.shape
    if v_BSV.shape[:2] != (B, S):
        raise ValueError(f"value has shape {tuple(v_BSV.shape)}, expected {(B, S)} + V")
    if mask_BTS is not None and mask_BTS.shape != (B, T, S):
        raise ValueError(
            f"mask has shape {tuple(mask_BTS.shape)}, expected {(B, T, S)}"
        )
    mask_1BTS = None if mask_BTS is None else mask_BTS.unsqueeze(0)
    weight_BTS = masked_softmax(score_BTS.unsqueeze(0), mask_1BTS).squeeze(0)
    blind_BT1 = (weight_BTS == 0).all(dim=-1, keepdim=True)
    chance_BTS = weight_BTS.detach().masked_fill(blind_BT1, 1.0)
    place_BT1 = torch.multinomial(chance_BTS.flatten(0, 1), 1).view(B, T, 1)
    out_BTV = v_BSV.gather(1, place_BT1.expand(B, T, v_BSV.shape[-1]))
    choice_BTS = F.one_hot(place_BT1.squeeze(-1), S).to(v_BSV.dtype)
    drawn_BT1 = weight_BTS.gather(-1, place_BT1).masked_fill(blind_BT1, 1.0)
    return (
        out_BTV.masked_fill(blind_BT1, 0.0),
        choice_BTS.masked_fill(blind_BT1, 0.0),
        drawn_BT1.log().squeeze(-1),
    )


# --8<-- [end:hard-attend]


# --8<-- [start:expected-loss]
def expected_loss(score_BTS: Tensor, v_BSV: Tensor, loss_of) -> Tensor:
    """Return the exact expectation (B, T) of the loss over all keys."""
    weight_BTS = torch.softmax(score_BTS, dim=-1)
    return (weight_BTS * loss_of(v_BSV).unsqueeze(1)).sum(-1)


# --8<-- [end:expected-loss]


# --8<-- [start:reinforce]
def reinforce(
    score_BTS: Tensor, v_BSV: Tensor, loss_of, baseline: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return a surrogate (B, T) to differentiate, and the loss (B, T) of the draw.

    The gradient of the surrogate estimates that of the expected loss, without bias:
    the first term reaches the scores, the second the values and `loss_of`.
    """
    out_BTV, _, log_chance_BT = hard_attend(score_BTS, v_BSV)
    loss_BT = loss_of(out_BTV)
    return (loss_BT.detach() - baseline) * log_chance_BT + loss_BT, loss_BT.detach()


# --8<-- [end:reinforce]


# --8<-- [start:straight-through]
def gumbel_choice(score_BTS: Tensor, temperature: float) -> Tensor:
    """Draw a one-hot choice (B, T, S) that is differentiated as if it were soft.

    Forward an exact draw (Gumbel-max), backward the Gumbel-softmax (Jang et al.
    2016, §2.2).
    """
    noise_BTS = -torch.empty_like(score_BTS).exponential_().log()
    soft_BTS = torch.softmax((score_BTS + noise_BTS) / temperature, dim=-1)
    hard_BTS = F.one_hot(soft_BTS.argmax(-1), score_BTS.shape[-1]).to(soft_BTS)
    return hard_BTS - soft_BTS.detach() + soft_BTS


def straight_through(
    score_BTS: Tensor, v_BSV: Tensor, loss_of, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the loss (B, T) of the draw twice: to differentiate, and to read."""
    loss_BT = loss_of(gumbel_choice(score_BTS, temperature) @ v_BSV)
    return loss_BT, loss_BT.detach()


# --8<-- [end:straight-through]


# --8<-- [start:look-alikes]
def top_k(score_S: Tensor, k: int) -> Tensor:
    """Return softmax weights (S) over the k largest scores, 0 elsewhere."""
    top_K, place_K = score_S.topk(k)
    return torch.zeros_like(score_S).scatter(0, place_K, torch.softmax(top_K, dim=-1))


def threshold(score_S: Tensor, level: float) -> Tensor:
    """Return 1 where the softmax weight is at least `level`, 0 elsewhere (S)."""
    return (torch.softmax(score_S, dim=-1) >= level).to(score_S)


def unique_hard(score_S: Tensor) -> Tensor:
    """Return 1 at the largest score, the leftmost if several, 0 elsewhere (S)."""
    return F.one_hot(score_S.argmax(), score_S.shape[0]).to(score_S)


# --8<-- [end:look-alikes]


# --8<-- [start:gradients]
def gradients(
    estimate, score_S: Tensor, v_SV: Tensor, loss_of, setting: float, B: int
) -> Tensor:
    """Return B independent estimates (B, S) of the gradient at the scores."""
    S, V = v_SV.shape
    score_B1S = score_S.expand(B, 1, S).clone().requires_grad_()
    surrogate_B1, _ = estimate(score_B1S, v_SV.expand(B, S, V), loss_of, setting)
    return torch.autograd.grad(surrogate_B1.sum(), score_B1S)[0].squeeze(1)


# --8<-- [end:gradients]


# --8<-- [start:train]
def learn_to_look(method: str, seed: int, steps: int = 150) -> list[float]:
    """Learn to tell the class at the one place of 8 whose key has a cue.

    Returns the mean weight on that place at each step.
    """
    torch.manual_seed(seed)
    B, S, K, V = 64, 8, 6, 4
    scorer, classifier = nn.Linear(K, 1, bias=False), nn.Linear(V, V)
    nn.init.zeros_(scorer.weight)
    model = nn.ModuleList([scorer, classifier])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    baseline, curve = 0.0, []
    for _ in range(steps):
        place_B = torch.randint(S, (B,))
        cue_BS = F.one_hot(place_B, S)
        k_BSK = torch.randn(B, S, K)
        k_BSK[..., 0] += 4.0 * cue_BS
        class_BS = torch.randint(V, (B, S))
        v_BSV = F.one_hot(class_BS, V).float()
        label_B1 = class_BS.gather(1, place_B.unsqueeze(1))
        score_B1S = scorer(k_BSK).mT
        weight_B1S = torch.softmax(score_B1S, dim=-1)
        curve.append((weight_B1S.squeeze(1) * cue_BS).sum(-1).mean().item())

        def loss_of(out_B1V: Tensor, label_B1=label_B1) -> Tensor:
            logit_BV1 = classifier(out_B1V).mT
            return F.cross_entropy(logit_BV1, label_B1, reduction="none")

        if method == "soft":
            surrogate_B1 = loss_of(weight_B1S @ v_BSV)
        elif method == "straight-through":
            surrogate_B1, _ = straight_through(score_B1S, v_BSV, loss_of)
        else:
            shift = baseline if method == "REINFORCE, baseline" else 0.0
            surrogate_B1, loss_B1 = reinforce(score_B1S, v_BSV, loss_of, shift)
            baseline = 0.9 * baseline + 0.1 * loss_B1.mean().item()
        optimizer.zero_grad()
        surrogate_B1.mean().backward()
        optimizer.step()
    return curve


# --8<-- [end:train]

if __name__ == "__main__":
    # --8<-- [start:first-run]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    B, S, V = 100_000, 4, 2
    weight_S = torch.tensor([0.4, 0.3, 0.2, 0.1])
    v_SV = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    score_S = weight_S.log()
    score_B1S, v_BSV = score_S.expand(B, 1, S), v_SV.expand(B, S, V)
    out_B1V, choice_B1S, _ = hard_attend(score_B1S, v_BSV)
    soft_11V = (weight_S @ v_SV).view(1, 1, V)
    for name, row in (
        ("one draw", choice_B1S[0, 0].tolist()),
        ("mean of draws", choice_B1S.mean((0, 1)).tolist()),
        ("weights", weight_S.tolist()),
        ("mean hard output", out_B1V.mean((0, 1)).tolist()),
        ("soft output", soft_11V.flatten().tolist()),
    ):
        print(f"{name:16}", [f"{x:.3f}" for x in row])
    # --8<-- [end:first-run]

    # --8<-- [start:loss]
    target_V = torch.tensor([1.0, 3.0])

    def loss_of(out_BTV: Tensor) -> Tensor:
        """Return the squared distance to the target (B, T)."""
        return (out_BTV - target_V.to(out_BTV)).square().sum(-1)

    exact = expected_loss(score_B1S[:1], v_BSV[:1], loss_of).item()
    print(f"expected loss of hard attention: {exact:.3f}")
    print(f"loss of soft attention: {loss_of(soft_11V).item():.3f}")
    # --8<-- [end:loss]

    # --8<-- [start:sampled-no-gradient]
    leaf_11S = score_S.view(1, 1, S).clone().requires_grad_()
    value_1SV = v_SV.unsqueeze(0).clone().requires_grad_()
    loss_of(hard_attend(leaf_11S, value_1SV)[0]).sum().backward()
    print("gradient at the values:", value_1SV.grad.abs().sum().item() > 0)
    print("gradient at the scores:", leaf_11S.grad)
    # --8<-- [end:sampled-no-gradient]

    try:
        # --8<-- [start:argmax-no-gradient]
        choice_11S = F.one_hot(leaf_11S.argmax(-1), S).float()
        loss_of(choice_11S @ v_SV).sum().backward()
        # --8<-- [end:argmax-no-gradient]
    except RuntimeError as error:
        print(error)

    # --8<-- [start:estimators]
    expected_11 = expected_loss(leaf_11S, v_BSV[:1], loss_of)
    exact_S = torch.autograd.grad(expected_11.sum(), leaf_11S)[0].flatten()
    print("exact gradient", [f"{x:.3f}" for x in exact_S.tolist()])
    report = {}
    for name, estimate, setting in (
        ("REINFORCE", reinforce, 0.0),
        ("REINFORCE, baseline", reinforce, exact),
        ("straight-through, τ = 1", straight_through, 1.0),
        ("straight-through, τ = 0.2", straight_through, 0.2),
    ):
        grad_BS = gradients(estimate, score_S, v_SV, loss_of, setting, B)
        mean_S, deviation_S = grad_BS.mean(0), grad_BS.std(0)
        off = ((mean_S - exact_S) / (deviation_S / B**0.5)).abs().max().item()
        variance = deviation_S.square().sum().item()
        draws = variance / exact_S.square().sum().item() / 0.1**2
        report[name] = off, variance, draws
        print(f"{name}: mean", [f"{x:.3f}" for x in mean_S.tolist()])
        print(f"  off by {off:.1f} errors; variance {variance:.2f}; {draws:.0f} draws")
    # --8<-- [end:estimators]

    # --8<-- [start:cost]
    q_KK, k_KK = torch.randn(2, 512, 512)
    with FlopCounterMode(display=False) as soft_flops:
        torch.softmax(q_KK @ k_KK.T, dim=-1) @ k_KK
    with FlopCounterMode(display=False) as hard_flops:
        hard_attend((q_KK @ k_KK.T).unsqueeze(0), k_KK.unsqueeze(0))
    print("FLOPs, soft:", soft_flops.get_total_flops())
    print("FLOPs, hard:", hard_flops.get_total_flops())
    # --8<-- [end:cost]

    # --8<-- [start:notions]
    for name, row in (
        ("soft", weight_S.tolist()),
        ("one draw", hard_attend(score_B1S[:1], v_BSV[:1])[1].flatten().tolist()),
        ("top-k, k = 2", top_k(score_S, 2).tolist()),
        ("threshold 0.25", threshold(score_S, 0.25).tolist()),
        ("threshold 0.5", threshold(score_S, 0.5).tolist()),
        ("unique hard", unique_hard(score_S).tolist()),
    ):
        print(f"{name:15}", [f"{x:.2f}" for x in row], f"sum {sum(row):.2f}")
    # --8<-- [end:notions]

    # --8<-- [start:learning]
    methods = "REINFORCE", "REINFORCE, baseline", "straight-through", "soft"
    curves = {}
    for method in methods:
        runs = [learn_to_look(method, seed) for seed in range(3)]
        curves[method] = [sum(step) / 3 for step in zip(*runs, strict=True)]
        at = {step: f"{curves[method][step]:.2f}" for step in (0, 50, 100, 149)}
        print(f"{method:20} weight on the right place at step", at)
    # --8<-- [end:learning]

    # --8<-- [start:learning-figure]
    for method, style in zip(curves, ("-", "--", "-.", ":"), strict=True):
        plt.plot(curves[method], style, label=method)
    plt.xlabel("step")
    plt.ylabel("weight on the right place")
    plt.legend()
    plt.show()
    # --8<-- [end:learning-figure]
