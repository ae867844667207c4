"""Attention as a lookup and as kernel regression: where the two pictures hold."""

# --8<-- [start:imports]
import math

import torch
import torch.nn.functional as F
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:two]
def kernel_regression(q_TK: Tensor, k_SK: Tensor, v_SV: Tensor, width: float) -> Tensor:
    """Average the values by a Gaussian of the distance (Nadaraya 1964), (T, V)."""
    kernel_TS = torch.exp(-torch.cdist(q_TK, k_SK).square() / (2 * width**2))
    return kernel_TS @ v_SV / kernel_TS.sum(-1, keepdim=True)


def attention(q_TK: Tensor, k_SK: Tensor, v_SV: Tensor, width: float) -> Tensor:
    """Average the values by a softmax of scaled dot products, (T, V)."""
    return (q_TK @ k_SK.T / width**2).softmax(-1) @ v_SV


# --8<-- [end:two]

if __name__ == "__main__":
    # --8<-- [start:gap]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    need = {}
    for S in (10, 100, 1000, 10_000):
        need[S] = math.log(99 * (S - 1))
        score_any = torch.zeros(S)
        score_any[0] = need[S]
        weight = score_any.softmax(0)[0].item()
        assert abs(weight - 0.99) < 1e-4
        print(f"{S:6} keys: weight 0.99 takes a lead of {need[S]:.1f} over all others")
    # --8<-- [end:gap]

    # --8<-- [start:equal]
    torch.manual_seed(0)
    q_TK, k_SK, v_SV = (torch.randn(n, 8).double() for n in (5, 20, 20))
    off = {}
    for name, key_SK in (
        ("same length", F.normalize(k_SK, dim=-1)),
        ("any length", k_SK),
    ):
        first_TV = kernel_regression(q_TK, key_SK, v_SV, width=0.7)
        second_TV = attention(q_TK, key_SK, v_SV, width=0.7)
        off[name] = (first_TV - second_TV).abs().max().item()
        print(f"keys of {name}: the two differ by {off[name]:.1g}")
    assert off["same length"] < 1e-12
    assert off["any length"] > 0.1
    # --8<-- [end:equal]

    # --8<-- [start:long-key]
    q_12 = torch.tensor([[1.0, 0.0]])
    k_22 = torch.tensor([[1.0, 0.0], [3.0, 3.0]])  # the query itself; a long key
    v_21 = torch.tensor([[0.0], [1.0]])
    share = {
        "kernel": kernel_regression(q_12, k_22, v_21, width=1).item(),
        "attention": attention(q_12, k_22, v_21, width=1).item(),
    }
    for name, weight in share.items():
        print(f"{name}: weight {weight:.3f} goes to the long key, far from the query")
    assert share["kernel"] < 0.01 < 0.5 < share["attention"]
    # --8<-- [end:long-key]

    # --8<-- [start:width]
    torch.manual_seed(0)
    k_S1 = torch.linspace(0, 5, 50).unsqueeze(1)
    v_S1 = (2 * k_S1).sin() + 0.3 * torch.randn(50, 1)
    q_T1 = torch.linspace(0.5, 4.5, 200).unsqueeze(1)
    error = {}
    for width in (0.01, 0.1, 0.2, 0.5, 5.0):
        out_T1 = kernel_regression(q_T1, k_S1, v_S1, width)
        error[width] = (out_T1 - (2 * q_T1).sin()).square().mean().sqrt().item()
        print(f"width {width:4}: error {error[width]:.2f}")
    assert min(error, key=error.get) in (0.1, 0.2)
    # --8<-- [end:width]
