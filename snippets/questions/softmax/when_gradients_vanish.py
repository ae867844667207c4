"""From which K on does softmax without √K let no gradient through? A sweep."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:jacobian-norm]
def jacobian_norm(score_BTS: Tensor) -> Tensor:
    """Return the Frobenius norm of diag(p) - ppᵀ for each row p (B, T)."""
    p_BTS = torch.softmax(score_BTS.double(), dim=-1)
    square_BT, cube_BT = p_BTS.square().sum(-1), p_BTS.pow(3).sum(-1)
    return (square_BT - 2 * cube_BT + square_BT.square()).clamp_min(0).sqrt()


def typical_norms(S: int, K: int) -> tuple[float, float, float]:
    """Return the median norm unscaled and scaled, and the mean norm unscaled.

    8 times 128 queries and S keys are drawn, all of unit variance.
    """
    score_BTS = torch.randn(8, 128, K) @ torch.randn(8, S, K).mT
    plain_BT = jacobian_norm(score_BTS)
    scaled_BT = jacobian_norm(score_BTS / math.sqrt(K))
    return plain_BT.median().item(), scaled_BT.median().item(), plain_BT.mean().item()


# --8<-- [end:jacobian-norm]

if __name__ == "__main__":
    # --8<-- [start:sweep]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    plain, scaled, mean = {}, {}, {}
    print("128 keys\n   K  median, 1/√K  median, 1   mean, 1")
    for K in (4, 16, 64, 128, 256, 512, 1024, 4096):
        plain[K], scaled[K], mean[K] = typical_norms(128, K)
        print(f"{K:4} {scaled[K]:13.3f} {plain[K]:10.1e} {mean[K]:9.3f}")
    assert plain[64] > scaled[64]  # at K = 64 nothing has vanished
    assert plain[512] < scaled[512] / 5
    assert plain[4096] < 1e-4 < 0.02 < mean[4096]  # gone for most, not for all
    # --8<-- [end:sweep]

    # --8<-- [start:keys]
    torch.manual_seed(0)
    first = {}
    for S in (16, 128, 1024):
        for K in (64, 128, 256, 512, 1024, 2048):
            unscaled, _, _ = typical_norms(S, K)
            if unscaled < 0.01:
                first[S] = K
                break
        print(f"{S:4} keys: the median is below 0.01 from K = {first[S]} on")
    assert first[16] < first[1024]
    # --8<-- [end:keys]
