"""Online softmax: when the maximum rises, one factor repairs the sum and the output."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:attend-online]
def attend_online(score_S: Tensor, v_SV: Tensor, rescale: bool = True) -> Tensor:
    """Return softmax(score) @ v (V), reading each score and each value once."""
    top, total, out_V = -math.inf, 0.0, torch.zeros_like(v_SV[0])
    for score, v_V in zip(score_S.tolist(), v_SV, strict=True):
        new = max(top, score)
        repair = math.exp(top - new) if rescale else 1.0  # exp(-inf) is 0: no start
        total = total * repair + math.exp(score - new)
        out_V = out_V * repair + math.exp(score - new) * v_V
        top = new
    return out_V / total


# --8<-- [end:attend-online]

if __name__ == "__main__":
    # --8<-- [start:by-hand]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    top, total = -math.inf, 0.0
    for score in (1.0, 3.0, 2.0, 5.0):
        new = max(top, score)
        repair = math.exp(top - new)
        total = total * repair + math.exp(score - new)
        top = new
        print(f"score {score:.0f}: max {top:.0f}, repair {repair:.4f}, sum {total:.4f}")
    exact = sum(math.exp(score - 5.0) for score in (1.0, 3.0, 2.0, 5.0))
    print(f"maximum first:                 sum {exact:.4f}")
    assert math.isclose(total, exact)
    # --8<-- [end:by-hand]

    # --8<-- [start:equal]
    torch.manual_seed(0)
    score_S, v_SV = 10 * torch.randn(500).double(), torch.randn(500, 8).double()
    exact_V = torch.softmax(score_S, 0) @ v_SV
    for name, order_S in (
        ("as drawn", score_S),
        ("rising", score_S.sort().values),
        ("falling", score_S.sort(descending=True).values),
        ("all + 1000", score_S + 1000),
    ):
        exact_V = torch.softmax(order_S, 0) @ v_SV
        off = (attend_online(order_S, v_SV) - exact_V).abs().max().item()
        bad = (attend_online(order_S, v_SV, rescale=False) - exact_V).abs().max().item()
        print(f"{name:10}: error {off:.0e}, without the repair {bad:.0e}")
        assert off < 1e-12
        assert (bad < 1e-12) == (name == "falling")  # only there no maximum rises
    # --8<-- [end:equal]

    # --8<-- [start:rises]
    torch.manual_seed(0)
    for S in (100, 1000, 10_000):
        top_TS = torch.randn(1000, S).cummax(dim=1).values
        rises = (top_TS[:, 1:] > top_TS[:, :-1]).sum(1).double().mean().item()
        expected = sum(1 / n for n in range(2, S + 1))
        print(
            f"{S:5} scores: the maximum rises {rises:.1f} times, Σ 1/n {expected:.1f}"
        )
        assert abs(rises - expected) < 0.5
    # --8<-- [end:rises]
