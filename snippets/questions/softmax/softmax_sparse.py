"""Softmax concentrates and gives no exact zero; sparsemax and top-k do."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:sparsemax]
def sparsemax(score_S: Tensor) -> Tensor:
    """Project the scores onto the probabilities (Martins and Astudillo 2016)."""
    sorted_S = score_S.sort(descending=True).values
    count_S = torch.arange(1, len(score_S) + 1)
    excess_S = sorted_S.cumsum(0) - 1
    kept = (count_S * sorted_S > excess_S).sum()
    return (score_S - excess_S[kept - 1] / kept).clamp_min(0)


# --8<-- [end:sparsemax]


# --8<-- [start:keys-for]
def keys_for(p_S: Tensor, share: float) -> int:
    """Count how many of the largest weights it takes to reach the share."""
    return (p_S.sort(descending=True).values.cumsum(0) < share).sum().item() + 1


# --8<-- [end:keys-for]

if __name__ == "__main__":
    # --8<-- [start:zeros]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    score_S = torch.randn(1000)
    best_any = score_S.topk(10)
    topk_S = torch.full_like(score_S, -torch.inf)
    topk_S[best_any.indices] = best_any.values
    results = {
        "softmax": torch.softmax(score_S, dim=0),
        "softmax of 5 × the scores": torch.softmax(5 * score_S, dim=0),
        "top 10, then softmax": torch.softmax(topk_S, dim=0),
        "sparsemax": sparsemax(score_S),
    }
    zeros, needed = {}, {}
    for name, p_S in results.items():
        zeros[name], needed[name] = (p_S == 0).sum().item(), keys_for(p_S, 0.9)
        print(f"{name:25}: {zeros[name]:3} zeros, 90 % on {needed[name]} keys")
        assert abs(p_S.sum().item() - 1) < 1e-5
        assert (zeros[name] == 0) == name.startswith("softmax")
    # --8<-- [end:zeros]

    # --8<-- [start:underflow]
    for gap in (50.0, 80.0, 110.0):
        p_2 = torch.softmax(torch.tensor([0.0, -gap]), dim=0)
        wide_2 = torch.softmax(torch.tensor([0.0, -gap], dtype=torch.float64), dim=0)
        print(f"gap {gap:3.0f}: float32 {p_2[1]:.1e}, float64 {wide_2[1]:.1e}")
        assert (p_2[1] == 0) == (gap > 104)
        assert wide_2[1] > 0
    # --8<-- [end:underflow]

    # --8<-- [start:uniform-limit]
    torch.manual_seed(0)
    for S in (100, 1000, 10_000, 100_000):
        score_S = torch.randn(S)
        score_S[0] = 8.0  # one key stands out, the others are noise
        print(f"{S:6} keys: the one that stands out has {score_S.softmax(0)[0]:.3f}")
    assert score_S.softmax(0)[0] < 0.05
    # --8<-- [end:uniform-limit]
