"""Permute the input: what self-attention, cross-attention and pooling do."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:attend-rows]
def attend_rows(x_TD: Tensor, y_SD: Tensor, causal: bool = False) -> Tensor:
    """Let the rows of x look at the rows of y, without positions; returns (T, D)."""
    score_TS = x_TD @ y_SD.T / math.sqrt(x_TD.shape[1])
    if causal:
        mask_TS = torch.ones_like(score_TS, dtype=torch.bool).tril()
        score_TS = score_TS.masked_fill(~mask_TS, -math.inf)
    return torch.softmax(score_TS, dim=-1) @ y_SD


# --8<-- [end:attend-rows]

if __name__ == "__main__":
    # --8<-- [start:permute]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    x_TD, learned_1D = torch.randn(6, 8), torch.randn(1, 8)
    order_T = torch.tensor([3, 0, 5, 1, 4, 2])
    moved_TD = x_TD[order_T]
    gap = {
        "self-attention, same rows": attend_rows(moved_TD, moved_TD)
        - attend_rows(x_TD, x_TD),
        "self-attention, permuted rows": attend_rows(moved_TD, moved_TD)
        - attend_rows(x_TD, x_TD)[order_T],
        "self-attention, then mean": attend_rows(moved_TD, moved_TD).mean(0)
        - attend_rows(x_TD, x_TD).mean(0),
        "one learned query": attend_rows(learned_1D, moved_TD)
        - attend_rows(learned_1D, x_TD),
        "causal, permuted rows": attend_rows(moved_TD, moved_TD, causal=True)
        - attend_rows(x_TD, x_TD, causal=True)[order_T],
    }
    gap = {name: each_any.abs().max().item() for name, each_any in gap.items()}
    for name, size in gap.items():
        print(f"{name:30} differ by {size:.2f}")
    assert gap["self-attention, permuted rows"] < 1e-6
    assert gap["self-attention, then mean"] < 1e-6
    assert gap["one learned query"] < 1e-6
    assert gap["self-attention, same rows"] > 0.1
    assert gap["causal, permuted rows"] > 0.1
    # --8<-- [end:permute]
