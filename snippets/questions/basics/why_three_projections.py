"""Why a head projects its input three times, and what two of them can share."""

# --8<-- [start:imports]
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --8<-- [end:imports]


# --8<-- [start:learn]
def learn_ring(tied: bool, T: int = 6, D: int = 16) -> Tensor:
    """Train a head whose token t has to look at token t − 1 of a ring of T tokens.

    With `tied`, queries and keys come from one projection. Returns weights (T, T).
    """
    torch.manual_seed(0)
    x_TD = torch.randn(T, D)
    to_q = nn.Linear(D, D, bias=False)
    to_k = to_q if tied else nn.Linear(D, D, bias=False)
    optimizer = torch.optim.Adam(nn.ModuleList([to_q, to_k]).parameters(), lr=0.01)
    before_T = torch.arange(T).roll(1)
    for _ in range(400):
        score_TT = to_q(x_TD) @ to_k(x_TD).T / math.sqrt(D)
        optimizer.zero_grad()
        F.cross_entropy(score_TT, before_T).backward()
        optimizer.step()
    return torch.softmax(score_TT.detach(), dim=-1)


# --8<-- [end:learn]

if __name__ == "__main__":
    # --8<-- [start:ring]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    right = {}
    for name, tied in (("two projections", False), ("Q = K", True)):
        weight_TT = learn_ring(tied)
        # Geometric means over the ring, in which 0 follows the last token.
        left, other = (
            weight_TT.roll(shift, dims=1).diagonal().log().mean().exp().item()
            for shift in (1, -1)
        )
        right[name] = left
        print(f"{name:15}: weight on the token before {left:.2f}, after {other:.2f}")
        if tied:
            assert math.isclose(left, other, rel_tol=1e-4)
            assert left <= 0.5
    assert right["two projections"] > 0.9
    # --8<-- [end:ring]

    # --8<-- [start:merge]
    torch.manual_seed(0)
    x_SD = torch.randn(10, 32)
    to_q_DK, to_k_DK = torch.randn(32, 4), torch.randn(32, 4)
    form_DD = to_q_DK @ to_k_DK.T
    score_SS = (x_SD @ to_q_DK) @ (x_SD @ to_k_DK).T
    assert score_SS.allclose(x_SD @ form_DD @ x_SD.T, rtol=1e-4, atol=1e-3)
    rank = torch.linalg.matrix_rank(form_DD).item()
    print(f"one matrix of rank {rank}: {form_DD.numel()} numbers instead of", end=" ")
    print(to_q_DK.numel() + to_k_DK.numel())
    # --8<-- [end:merge]

    # --8<-- [start:shared]
    torch.manual_seed(0)
    q_K, k_SK, v_SK = torch.randn(8), torch.randn(10, 8), torch.randn(10, 8)

    def look(key_SK: Tensor, value_SK: Tensor) -> Tensor:
        """Attend with the one query, (K)."""
        return torch.softmax(key_SK @ q_K / math.sqrt(8), dim=-1) @ value_SK

    change = {
        "separate": (look(k_SK, 2 * v_SK) - 2 * look(k_SK, v_SK)).abs().max().item(),
        "K = V": (look(2 * v_SK, 2 * v_SK) - 2 * look(v_SK, v_SK)).abs().max().item(),
    }
    print("twice the values: off from twice the output by", end=" ")
    print({name: f"{gap:.2f}" for name, gap in change.items()})
    assert change["separate"] < 1e-5 < 0.1 < change["K = V"]
    # --8<-- [end:shared]
