"""REINFORCE for hard attention: mean and variance, exact, by enumerating the draws."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:moments]
def moments(weight_S: Tensor, loss_S: Tensor, baseline: float) -> tuple[Tensor, float]:
    """Return the mean (S) and the variance of one REINFORCE estimate, exactly.

    Row s of `grad_SS` is the estimate when position s is drawn.
    """
    log_grad_SS = torch.eye(len(weight_S)).to(weight_S) - weight_S
    grad_SS = (loss_S - baseline).unsqueeze(1) * log_grad_SS
    mean_S = weight_S @ grad_SS
    variance = weight_S @ (grad_SS - mean_S).square().sum(1)
    return mean_S, variance.item()


# --8<-- [end:moments]


# --8<-- [start:needle]
def draws_needed(S: int, with_baseline: bool, shift: float = 0.0) -> float:
    """Count the draws until the standard error is 10 % of the gradient's length.

    The weights are uniform over S positions; the loss is 0 at one and 1 elsewhere,
    plus `shift`.
    """
    weight_S = torch.full((S,), 1 / S, dtype=torch.float64)
    loss_S = torch.ones_like(weight_S) + shift
    loss_S[0] -= 1
    mean_loss = (weight_S @ loss_S).item()
    exact_S = weight_S * (loss_S - mean_loss)
    mean_S, variance = moments(weight_S, loss_S, mean_loss if with_baseline else 0.0)
    assert mean_S.allclose(exact_S)  # unbiased with either baseline
    return variance / exact_S.square().sum().item() / 0.1**2


# --8<-- [end:needle]

if __name__ == "__main__":
    # --8<-- [start:variance]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    needed = {}
    print("positions  no baseline  no baseline, loss + 10  mean loss as baseline")
    for size in (4, 16, 64, 256):
        needed[size] = (
            draws_needed(size, with_baseline=False),
            draws_needed(size, with_baseline=False, shift=10.0),
            draws_needed(size, with_baseline=True, shift=10.0),
        )
        print("{:9}  {:11.0f}  {:22.0f}  {:21.0f}".format(size, *needed[size]))
    growth = [
        large / small for small, large in zip(needed[64], needed[256], strict=True)
    ]
    assert growth[0] > 15 > 5 > growth[2]  # S squared, and S
    # --8<-- [end:variance]

    # --8<-- [start:own-loss]
    torch.manual_seed(0)
    weight_S = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    loss_S = torch.tensor([9.0, 5.0, 10.0, 1.0], dtype=torch.float64)
    exact_S = weight_S * (loss_S - weight_S @ loss_S)
    log_grad_SS = torch.eye(4, dtype=torch.float64) - weight_S
    ratio = {}
    # Two draws a and b: enumerate the 16 pairs, each with its probability.
    for name, own in (("mean of both", 0.5), ("loss of the other", 0.0)):
        mean_S = torch.zeros_like(weight_S)
        for a, chance_a in enumerate(weight_S):
            for b, chance_b in enumerate(weight_S):
                baseline = own * loss_S[a] + (1 - own) * loss_S[b]
                grad_S = (loss_S[a] - baseline) * log_grad_SS[a]
                mean_S += chance_a * chance_b * grad_S
        ratio[name] = (mean_S @ exact_S / exact_S.square().sum()).item()
        print(f"baseline = {name}: {ratio[name]:.2f} of the gradient")
    assert abs(ratio["mean of both"] - 0.5) < 1e-9
    assert abs(ratio["loss of the other"] - 1) < 1e-9
    # --8<-- [end:own-loss]
