"""Four ways to evict keys, on a needle that is looked at early, late, or afterwards."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:weights]
def weights(q_SK: Tensor, k_SK: Tensor) -> Tensor:
    """Return causal attention weights (S, S) of a prompt of S tokens."""
    score_SS = q_SK @ k_SK.T / k_SK.shape[1] ** 0.5
    future_SS = torch.ones_like(score_SS, dtype=torch.bool).triu(1)
    return torch.softmax(score_SS.masked_fill(future_SS, -torch.inf), dim=-1)


# --8<-- [end:weights]


# --8<-- [start:heavy]
def heavy_hitters(weight_SS: Tensor, budget: int) -> Tensor:
    """Keep half for the newest, half for what got most attention so far (H2O).

    Decided at every step and never undone. Returns booleans (S).
    """
    kept_S = torch.zeros(len(weight_SS), dtype=torch.bool)
    total_S = torch.zeros(len(weight_SS))
    for t, row_S in enumerate(weight_SS):
        kept_S[t] = True
        left_S = row_S * kept_S
        total_S += left_S / left_S.sum()
        if t >= budget:
            rank_S = total_S.masked_fill(~kept_S, torch.inf)
            rank_S[t - budget // 2 + 1 :] = torch.inf
            kept_S[rank_S.argmin()] = False
    return kept_S


# --8<-- [end:heavy]


# --8<-- [start:last]
def last_queries(weight_SS: Tensor, budget: int) -> Tensor:
    """Keep half for the newest, half for what the last 16 queries look at (SnapKV)."""
    total_S = weight_SS[-16:].sum(dim=0)
    total_S[-budget // 2 :] = torch.inf
    kept_S = torch.zeros_like(total_S, dtype=torch.bool)
    kept_S[total_S.topk(budget).indices] = True
    return kept_S


# --8<-- [end:last]


if __name__ == "__main__":
    # --8<-- [start:needle]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    trials, length, budget, needle = 10, 256, 32, 60
    position_S = torch.arange(length)
    policies = {
        "recent": lambda w_any: position_S >= length - budget,
        "sinks + recent": lambda w_any: (
            (position_S < 4) | (position_S >= length - budget + 4)
        ),
        "heavy + recent": lambda w_any: heavy_hitters(w_any, budget),
        "last queries": lambda w_any: last_queries(w_any, budget),
    }
    looking = {
        "early": range(61, 128, 4),
        "at the end": range(248, 256),
        "afterwards": [],
    }
    found = {}
    for when, askers in looking.items():
        for name, policy in policies.items():
            torch.manual_seed(0)
            hits = 0
            for _ in range(trials):
                q_SK, k_SK = torch.randn(2, length, 32)
                q_SK[list(askers)] += 2 * k_SK[needle]
                kept_S = policy(weights(q_SK, k_SK))
                assert kept_S.sum() == budget
                hits += kept_S[needle].item()
            found[name, when] = hits / trials
    for name in policies:
        print(f"{name:14}", {when: f"{found[name, when]:.0%}" for when in looking})
    assert found["heavy + recent", "early"] > 0.8 > 0.2 > found["last queries", "early"]
    assert found["last queries", "at the end"] > 0.8
    assert found["heavy + recent", "at the end"] < 0.2
    assert max(found[name, "afterwards"] for name in policies) < 0.4  # all guess
    # --8<-- [end:needle]

    # --8<-- [start:full]
    torch.manual_seed(0)
    k_NSK = torch.randn(200, 256, 32)  # 200 caches
    score_NS = 2 * torch.einsum("NSK,NK->NS", k_NSK, k_NSK[:, 60]) / 32**0.5
    whole = torch.softmax(score_NS, dim=1)[:, 60].mean().item()
    gone_NS = score_NS.index_fill(1, torch.tensor([60]), -torch.inf)
    other = torch.softmax(gone_NS, dim=1).amax(dim=1).mean().item()
    print(f"full cache: weight {whole:.2f} on the needle;", end=" ")
    print(f"once it is gone, another key gets {other:.2f}")
    assert whole > 0.8
    # --8<-- [end:full]
