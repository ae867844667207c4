"""How sharp the weights start out: additive, dot product, scaled dot product."""

# --8<-- [start:imports]
import math

import torch

# --8<-- [end:imports]
from snippets.foundations.additive import AdditiveAttention


# --8<-- [start:largest]
def largest_weight(K: int) -> dict[str, float]:
    """Return the mean of the largest of 64 weights for each score, before training."""
    q_BTK, k_BSK = torch.randn(1, 64, K), torch.randn(1, 64, K)
    additive = AdditiveAttention(query_size=K, key_size=K, hidden_size=K)
    dot_BTS = q_BTK @ k_BSK.mT
    scores = {
        "dot": dot_BTS,
        "scaled dot": dot_BTS / math.sqrt(K),
        "additive": additive.score(q_BTK, k_BSK).detach(),
    }
    return {
        name: torch.softmax(score_BTS, dim=-1).amax(-1).mean().item()
        for name, score_BTS in scores.items()
    }


# --8<-- [end:largest]

if __name__ == "__main__":
    # --8<-- [start:sweep]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    table = {size: largest_weight(size) for size in (4, 16, 64, 256, 1024)}
    for size, row in table.items():
        print(f"K = {size:4}:", {name: f"{w:.2f}" for name, w in row.items()})
    assert table[1024]["dot"] > 0.9 > 2 * table[4]["dot"]
    assert all(row["scaled dot"] < 0.2 for row in table.values())
    # --8<-- [end:sweep]

    # --8<-- [start:bounded]
    torch.manual_seed(0)
    additive = AdditiveAttention(query_size=64, key_size=64, hidden_size=64)
    q_BTK, k_BSK = torch.randn(1, 8, 64), torch.randn(1, 8, 64)
    bound = additive.energy.weight.abs().sum().item()
    grown = {}
    for factor in (1, 10, 100):
        score_BTS = additive.score(factor * q_BTK, factor * k_BSK).detach()
        dot_BTS = factor * q_BTK @ (factor * k_BSK).mT / 8
        grown[factor] = (score_BTS.abs().max().item(), dot_BTS.abs().max().item())
        assert grown[factor][0] <= bound
        print(
            "input × {:3}: additive {:.2f}, scaled dot {:.2f}".format(
                factor, *grown[factor]
            )
        )
    print(f"no additive score can exceed {bound:.2f}, the sum of |w|")
    # --8<-- [end:bounded]
