"""Other scales than 1/√K: the same functions, but other starts and other steps."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:step]
def score_change(optimizer: type, folded: bool, K: int) -> float:
    """Return how much one step on the query matrix changes the scores.

    Folded: the matrix starts √K times smaller, and nothing is divided by √K.
    Both forms give the same scores before the step, at the same rate.
    """
    torch.manual_seed(0)
    D = 64
    x_TD, k_SK, target_TS = torch.randn(8, D), torch.randn(8, K), torch.randn(8, 8)
    start_DK = torch.randn(D, K) / math.sqrt(D)
    scale = 1.0 if folded else 1 / math.sqrt(K)
    w_DK = (start_DK / math.sqrt(K) if folded else start_DK).requires_grad_()

    def score() -> Tensor:
        return x_TD @ w_DK @ k_SK.T * scale

    before_TS = score()
    (torch.softmax(before_TS, dim=-1) * target_TS).sum().backward()
    optimizer([w_DK], lr=1e-4).step()
    return (score() - before_TS).norm().item()


# --8<-- [end:step]

if __name__ == "__main__":
    # --8<-- [start:start]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    D, K = 512, 64
    x_TD = torch.randn(256, D)  # normalized input: unit variance
    k_TK = x_TD @ torch.randn(D, K) / math.sqrt(D)
    q_TK = torch.randn(256, D) @ torch.randn(D, K) / math.sqrt(D)
    folded_TK = torch.randn(256, D) @ torch.randn(D, K) / math.sqrt(D * K)  # as T5
    variance = {
        "1": (q_TK @ k_TK.T).var().item(),
        "1/√K": (q_TK @ k_TK.T / math.sqrt(K)).var().item(),
        "1/K": (q_TK @ k_TK.T / K).var().item(),
        "1, T5's start": (folded_TK @ k_TK.T).var().item(),
    }
    for name, value in variance.items():
        print(f"scale {name:13}: variance of the scores {value:7.3f}")
    assert 0.5 < variance["1, T5's start"] < 2
    assert 0.5 < variance["1/√K"] < 2
    assert variance["1"] > 30
    assert variance["1/K"] < 0.03
    # --8<-- [end:start]

    # --8<-- [start:absorb]
    torch.manual_seed(0)
    K = 64
    q_TK, k_SK = torch.randn(2, 16, K, dtype=torch.float64).unbind(0)
    root_TS = torch.softmax(q_TK @ k_SK.T / math.sqrt(K), dim=-1)
    full_TS = torch.softmax((math.sqrt(K) * q_TK) @ k_SK.T / K, dim=-1)
    tau = torch.tensor(math.log(math.sqrt(K)), dtype=torch.float64)  # learned in log
    learned_TS = torch.softmax(q_TK @ k_SK.T * torch.exp(-tau), dim=-1)
    for name, other_TS in (("1/K, larger q", full_TS), ("temperature", learned_TS)):
        off = (other_TS - root_TS).abs().max().item()
        print(f"{name:13}: weights differ by {off:.0e}")
        assert off < 1e-14
    # --8<-- [end:absorb]

    # --8<-- [start:steps]
    torch.manual_seed(0)
    for K in (16, 64):
        for name, expected in (("SGD", K), ("Adam", math.sqrt(K)), ("Adafactor", 1)):
            kind = getattr(torch.optim, name)
            ratio = score_change(kind, True, K) / score_change(kind, False, K)
            print(f"K = {K}, {name:9}: folded steps {ratio:.1f} × as far")
            assert abs(ratio / expected - 1) < 0.05
    # --8<-- [end:steps]

    # --8<-- [start:aligned]
    torch.manual_seed(0)
    for K in (64, 256, 1024):
        x_TK = torch.randn(1000, K)
        own = x_TK.square().sum(-1).mean().item()  # a query equal to its key
        print(f"K = {K:4}: q·q/√K = {own / math.sqrt(K):5.2f}, q·q/K = {own / K:.2f}")
        assert abs(own / K - 1) < 0.05
    # --8<-- [end:aligned]
