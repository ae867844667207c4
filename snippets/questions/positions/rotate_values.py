"""Rotating values makes outputs depend on absolute positions."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.positions.rope import frequencies, rotate_halves

if __name__ == "__main__":
    # --8<-- [start:values]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    T, K = 10, 32
    q_11TK, k_11TK, v_11TK = torch.randn(3, 1, 1, T, K, dtype=torch.float64).unbind(0)
    same_11TK = v_11TK[:, :, :1].expand(1, 1, T, K)  # ten equal values
    theta_J = frequencies(K)

    def attend_from(start: int, values: str, v_11TK: Tensor = v_11TK) -> Tensor:
        """Attend with positions from `start`; values as they are, rotated, or both."""
        pos_1T = torch.arange(start, start + T).unsqueeze(0)
        q_any, k_any = (
            rotate_halves(each_11TK, pos_1T, theta_J) for each_11TK in (q_11TK, k_11TK)
        )
        weight_11TT = torch.softmax(q_any @ k_any.mT / math.sqrt(K), dim=-1)
        if values == "as they are":
            return weight_11TT @ v_11TK
        out_11TK = weight_11TT @ rotate_halves(v_11TK, pos_1T, theta_J)
        if values == "rotated and turned back":
            return rotate_halves(out_11TK, -pos_1T, theta_J)
        return out_11TK

    moved, length = {}, {}
    for values in ("as they are", "rotated", "rotated and turned back"):
        moved[values] = (
            (attend_from(0, values) - attend_from(7, values)).abs().max().item()
        )
        out_11TK = attend_from(0, values, same_11TK)
        length[values] = (out_11TK.norm() / same_11TK.norm()).item()
        print(
            f"values {values}: a shift by 7 moves outputs by {moved[values]:.2g},"
            f" ten equal values keep {length[values]:.0%} of their length"
        )
    assert moved["rotated"] > 0.1
    assert max(moved["as they are"], moved["rotated and turned back"]) < 1e-10
    assert abs(length["as they are"] - 1) < 1e-10
    assert length["rotated"] < 0.95
    # --8<-- [end:values]
