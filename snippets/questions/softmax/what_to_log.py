"""What to log of attention in training: the largest score, and the entropy of each head."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:watch]
def watch(score_HTS: Tensor, mask_TS: Tensor) -> dict[str, Tensor]:
    """Return what to log of each head (H): largest score, entropy, saturated rows.

    The entropy is in nats, divided by that of even weights over the visible keys,
    and averaged over the queries that see at least two.
    """
    visible_HTS = mask_TS.expand_as(score_HTS)
    hidden_HTS = score_HTS.masked_fill(~visible_HTS, -math.inf)
    log_HTS = torch.log_softmax(hidden_HTS.float(), dim=-1)
    p_HTS = log_HTS.exp()
    entropy_HT = -(p_HTS * log_HTS.masked_fill(~visible_HTS, 0.0)).sum(-1)
    count_T = mask_TS.sum(-1)
    share_any = (entropy_HT / count_T.log())[:, count_T > 1]
    return {
        "largest_H": hidden_HTS.amax((-1, -2)),
        "entropy_H": share_any.mean(-1),
        "saturated_H": (p_HTS.amax(-1) > 0.99)[:, count_T > 1].float().mean(-1),
    }


# --8<-- [end:watch]

if __name__ == "__main__":
    # --8<-- [start:heads]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    T = 64
    causal_TT = torch.ones(T, T, dtype=torch.bool).tril()
    size_H11 = torch.tensor([0.0, 1.0, 5.0, 50.0]).view(-1, 1, 1)
    seen = watch(size_H11 * torch.randn(4, T, T), causal_TT)
    print("scores ×   largest   entropy   rows above 0.99")
    for size, largest, entropy, saturated in zip(
        size_H11.flatten().tolist(),
        *(x_H.tolist() for x_H in seen.values()),
        strict=True,
    ):
        print(f"{size:8.0f} {largest:9.1f} {entropy:9.2f} {saturated:17.0%}")
    # --8<-- [end:heads]

    # --8<-- [start:forward-copy]
    T = 64
    causal_TT = torch.ones(T, T, dtype=torch.bool).tril()
    previous_1TT = 20.0 * torch.eye(T).roll(-1, dims=1).unsqueeze(0)
    copying = watch(previous_1TT, causal_TT)
    print(f"a head that looks one back: entropy {copying['entropy_H'].item():.3f}")
    assert copying["entropy_H"] < 0.01  # low by design, not collapsed
    # --8<-- [end:forward-copy]

    # --8<-- [start:half-precision]
    gap = {}
    for score in (1.0, 10.0, 100.0, 1000.0):
        here = torch.tensor(score, dtype=torch.bfloat16)
        gap[score] = (torch.nextafter(here, here + here) - here).item()
        factor = math.exp(gap[score] / 2)
        print(
            f"bfloat16 near {score:4.0f}: step {gap[score]:.4f}, weight × {factor:.3f}"
        )
    assert gap[100.0] == 0.5
    # --8<-- [end:half-precision]

    # --8<-- [start:too-late]
    torch.manual_seed(0)
    q_TK, k_SK = torch.randn(4096, 64), torch.randn(64, 64)
    for size in (1.0, 10.0, 50.0):
        score_TS = size * (q_TK @ k_SK.T) / 8
        exact_TS = torch.softmax(score_TS, dim=-1)
        late_TS = torch.softmax(score_TS.bfloat16().float(), dim=-1)  # wide too late
        off = (late_TS - exact_TS).abs().sum(-1).max().item() / 2
        print(f"scores × {size:4.0f}, rounded, softmax in float32: up to {off:.1%} off")
    assert off > 0.05
    # --8<-- [end:too-late]
