"""Where positions enter: once at the input, or in each layer."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.positions.alibi import slopes
from snippets.positions.rope import frequencies, rotate_halves

if __name__ == "__main__":
    # --8<-- [start:layers]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    T, D, L = 5, 32, 6
    x_TD = torch.randn(T, D, dtype=torch.float64)
    w_L3DD = torch.randn(L, 3, D, D, dtype=torch.float64) / math.sqrt(D)
    theta_J, slope_11 = frequencies(D), slopes(1).unsqueeze(1)

    def run(method: str, start: int) -> tuple[Tensor, int]:
        """Return the output of 6 layers, and how often positions were put in."""
        pos_T, out_TD, used = torch.arange(start, start + T), x_TD, 0
        if method == "added to the input":
            angle_TJ = pos_T.unsqueeze(1) * theta_J
            out_TD, used = out_TD + torch.cat((angle_TJ.sin(), angle_TJ.cos()), 1), 1
        for w_3DD in w_L3DD:
            q_TD, k_TD, v_TD = out_TD @ w_3DD
            if method == "RoPE":
                pair_21TD = torch.stack((q_TD, k_TD)).unsqueeze(1)
                pair_21TD = rotate_halves(pair_21TD, pos_T.expand(2, T), theta_J)
                (q_TD, k_TD), used = pair_21TD.squeeze(1), used + 2
            score_TT = q_TD @ k_TD.T / math.sqrt(D)
            if method == "ALiBi":
                away_TT = pos_T.unsqueeze(1) - pos_T
                score_TT, used = score_TT - slope_11 * away_TT, used + 1
            may_TT = torch.ones(T, T).tril().bool()
            score_TT = score_TT.masked_fill(~may_TT, -torch.inf)
            out_TD = out_TD + torch.softmax(score_TT, dim=-1) @ v_TD
        return out_TD, used

    moved = {}
    for method in ("added to the input", "RoPE", "ALiBi"):
        (here_TD, used), (there_TD, _) = run(method, 0), run(method, 100)
        gap = (here_TD - there_TD).abs().max() / here_TD.abs().max()
        moved[method] = gap.item()
        print(f"{method}: {used} times, a shift by 100 moves outputs by {gap:.1g}")
    assert moved["added to the input"] > 0.01
    assert max(moved["RoPE"], moved["ALiBi"]) < 1e-5
    # --8<-- [end:layers]
