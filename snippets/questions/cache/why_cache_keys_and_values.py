"""Why keys and values are cached and queries are not, and what a cache saves."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:causal]
def causal(q_TK: Tensor, k_TK: Tensor, v_TK: Tensor, hide: bool = True) -> Tensor:
    """Attend from each position to itself and what came before; returns (T, K)."""
    score_TT = q_TK @ k_TK.T / math.sqrt(q_TK.shape[1])
    if hide:
        future_TT = torch.ones(len(q_TK), len(q_TK)).triu(1).bool()
        score_TT = score_TT.masked_fill(future_TT, -math.inf)
    return torch.softmax(score_TT, dim=-1) @ v_TK


# --8<-- [end:causal]


if __name__ == "__main__":
    # --8<-- [start:used]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    kept = dict(zip("qkv", torch.randn(3, 8, 16), strict=True))
    new_K = causal(*kept.values())[-1]  # the output of the newest of 8 positions
    needed = {}
    for lost in kept:
        row_any = [x_any.clone() for x_any in kept.values()]
        row_any["qkv".index(lost)][:7] = math.nan  # forget the 7 old rows
        needed[lost] = not causal(*row_any)[-1].equal(new_K)
        print(
            f"old {lost} lost: the new output is", "lost" if needed[lost] else "equal"
        )
    assert needed == {"q": False, "k": True, "v": True}
    # --8<-- [end:used]

    # --8<-- [start:stable]
    torch.manual_seed(0)
    x_TK = torch.randn(8, 16, dtype=torch.float64)
    to_k_KK = torch.randn(16, 16, dtype=torch.float64)
    moved = {}
    for name, hide in (("causal", True), ("no mask", False)):
        old_any, new_any = (  # keys of layer 2, from the outputs of layer 1
            causal(*[part_any] * 3, hide) @ to_k_KK for part_any in (x_TK[:7], x_TK)
        )
        moved[name] = (new_any[:7] - old_any).abs().max().item()
        print(f"{name}: token 8 moves the old keys of layer 2 by {moved[name]:.1g}")
    assert moved["causal"] < 1e-12 < 0.1 < moved["no mask"]
    # --8<-- [end:stable]

    # --8<-- [start:work]
    torch.manual_seed(0)
    N, K = 100, 16
    x_NK, to_k_KK = torch.randn(N, K), torch.randn(K, K)
    count = {"rows, cache": 0, "rows, none": 0, "q·k, cache": 0, "q·k, none": 0}
    cache_NK = torch.empty(N, K)
    for t in range(1, N + 1):
        x_any = x_NK[:t]
        cache_NK[t - 1] = x_any[-1] @ to_k_KK
        count["rows, cache"] += 1
        count["q·k, cache"] += (x_any[-1:] @ cache_NK[:t].T).numel()
        again_any = x_any @ to_k_KK
        assert torch.allclose(cache_NK[:t], again_any, atol=1e-5)  # the same keys
        count["rows, none"] += len(again_any)
        count["q·k, none"] += (x_any @ again_any.T).tril().count_nonzero().item()
    print(count)
    assert count["rows, cache"] == N
    assert count["rows, none"] == count["q·k, cache"] == N * (N + 1) // 2
    assert count["q·k, none"] == N * (N + 1) * (N + 2) // 6
    # --8<-- [end:work]
