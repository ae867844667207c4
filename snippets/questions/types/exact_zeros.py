"""Sparsemax gives exact zeros and softmax does not; what that does to gradients."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:sparsemax]
def sparsemax(score_S: Tensor) -> Tensor:
    """Project scores onto the probability simplex (Martins and Astudillo 2016).

    Returns weights (S) that sum to 1, most of them exactly 0 when scores differ.
    """
    sorted_S = score_S.sort(descending=True).values
    count_S = torch.arange(1, len(score_S) + 1)
    excess_S = sorted_S.cumsum(0) - 1
    kept = (count_S * sorted_S > excess_S).sum()
    return (score_S - excess_S[kept - 1] / kept).clamp(min=0)


# --8<-- [end:sparsemax]

if __name__ == "__main__":
    # --8<-- [start:zeros]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    score_S = torch.randn(64)
    support = {}
    for scale in (0.001, 0.01, 0.1, 1, 10):
        weights = {
            "softmax": torch.softmax(scale * score_S, dim=0),
            "sparsemax": sparsemax(scale * score_S),
        }
        support[scale] = {n: (each_S > 0).sum().item() for n, each_S in weights.items()}
        print(f"scores × {scale}: positive weights of 64", support[scale])
        assert support[scale]["softmax"] == 64
    assert support[0.001]["sparsemax"] == 64
    assert support[10]["sparsemax"] == 1
    # --8<-- [end:zeros]

    # --8<-- [start:gradient]
    torch.manual_seed(0)
    few_4 = torch.tensor([1.0, 0.8, 0.1, -1.0])
    reached = {}
    for name, apply in (
        ("softmax", lambda score_S: torch.softmax(score_S, dim=0)),
        ("sparsemax", sparsemax),
    ):
        jacobian_44 = torch.autograd.functional.jacobian(apply, few_4)
        reached[name] = (jacobian_44 != 0).any(0).tolist()
        print(f"{name:9}", [f"{w:.2f}" for w in apply(few_4).tolist()], end=" ")
        print("gradient at the scores:", reached[name])
    assert reached["softmax"] == [True] * 4
    assert reached["sparsemax"] == [True, True, False, False]
    # --8<-- [end:gradient]
