"""Local attention of Luong et al.: a window, and a Gaussian that makes it trainable."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:local]
def local_weights(
    score_S: Tensor, center: Tensor, half: int, gaussian: bool = True
) -> Tensor:
    """Return weights (S) around a real-valued center (Luong et al. 2015, §3.2).

    Softmax over the positions at most `half` away, times a Gaussian of deviation
    half / 2 if asked for; outside the window 0.
    """
    distance_S = torch.arange(len(score_S)) - center
    inside_S = distance_S.abs() <= half
    weight_S = torch.softmax(score_S.masked_fill(~inside_S, -math.inf), dim=0)
    if gaussian:
        weight_S = weight_S * torch.exp(-2 * (distance_S / half) ** 2)
    return weight_S


# --8<-- [end:local]

if __name__ == "__main__":
    # --8<-- [start:window]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    scored, total = {}, {}
    for length in (50, 500, 5000):
        score_any = torch.zeros(length)
        for name, gaussian in (("window", False), ("with Gaussian", True)):
            weight_any = local_weights(score_any, torch.tensor(20.0), 10, gaussian)
            scored[length] = (weight_any > 0).sum().item()
            total[name] = weight_any.sum().item()
        print(f"S = {length:4}: global {length} positions, local {scored[length]}")
        assert scored[length] == 21
    assert abs(total["window"] - 1) < 1e-5
    assert total["with Gaussian"] < 0.7
    print("sum of the weights:", {name: f"{t:.2f}" for name, t in total.items()})
    # --8<-- [end:window]

    # --8<-- [start:gradient]
    torch.manual_seed(0)
    v_S = torch.arange(50.0)
    score_S = torch.zeros(50)
    gradient = {}
    for name, gaussian in (("window", False), ("with Gaussian", True)):
        center = torch.tensor(20.3, requires_grad=True)
        out = local_weights(score_S, center, 10, gaussian) @ v_S
        gradient[name] = None
        if out.requires_grad:
            gradient[name] = f"{torch.autograd.grad(out, center)[0].item():.2f}"
        print(f"{name:13}: gradient at the center", gradient[name])
    assert gradient["window"] is None
    assert gradient["with Gaussian"] is not None
    # --8<-- [end:gradient]
