"""Two layouts of RoPE: different results, equal after a permutation of channels."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.positions.rope import (
    frequencies,
    rotate_halves,
    rotate_pairs,
    rows_to_halves,
    to_halves,
)

if __name__ == "__main__":
    # --8<-- [start:convert]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    H, T, K, D = 2, 10, 16, 32
    theta_J, pos_1T = frequencies(K), torch.arange(T).unsqueeze(0)
    x_1TD = torch.randn(1, T, D, dtype=torch.float64)
    wq_any, wk_any = torch.randn(2, H * K, D, dtype=torch.float64).unbind(0)

    def heads(weight_any: Tensor) -> Tensor:
        """Project and split into heads, (1, H, T, K)."""
        return (x_1TD @ weight_any.T).unflatten(2, (H, K)).transpose(1, 2)

    def scores(q_1HTK: Tensor, k_1HTK: Tensor) -> Tensor:
        """Return all dot products, (1, H, T, T)."""
        return q_1HTK @ k_1HTK.mT

    turned_1HTK = rotate_pairs(heads(wq_any), pos_1T, theta_J)
    other_1HTK = rotate_halves(heads(wq_any), pos_1T, theta_J)
    apart = (turned_1HTK - other_1HTK).abs().max().item()
    moved_1HTK = rotate_halves(to_halves(heads(wq_any)), pos_1T, theta_J)
    same = (to_halves(turned_1HTK) - moved_1HTK).abs().max().item()
    print(f"layouts differ by {apart:.2f}, after the permutation by {same:.1g}")
    right_1HTT = scores(turned_1HTK, rotate_pairs(heads(wk_any), pos_1T, theta_J))
    gaps = {}
    for name, convert in (
        ("reordered", rows_to_halves),
        ("left alone", lambda weight_any, _: weight_any),
    ):
        q_1HTK, k_1HTK = (heads(convert(w_any, H)) for w_any in (wq_any, wk_any))
        q_1HTK, k_1HTK = (
            rotate_halves(x_1HTK, pos_1T, theta_J) for x_1HTK in (q_1HTK, k_1HTK)
        )
        gaps[name] = (scores(q_1HTK, k_1HTK) - right_1HTT).abs().max().item()
        print(f"half-split, weights {name}: scores off by {gaps[name]:.2g}")
    assert apart > 1
    assert max(same, gaps["reordered"]) < 1e-10
    assert gaps["left alone"] > 1
    # --8<-- [end:convert]

    try:
        # --8<-- [start:wrong-size]
        q_TK = torch.randn(10, 16)
        angle_TJ = torch.arange(10).unsqueeze(1) * frequencies(16)
        first_TJ, second_TJ = q_TK.chunk(2, dim=-1)
        half_TK = torch.cat((-second_TJ, first_TJ), dim=-1)  # rotate_half
        q_TK * angle_TJ.cos() + half_TK * angle_TJ.sin()
        # --8<-- [end:wrong-size]
    except RuntimeError as error:
        print(error)

    # --8<-- [start:mixed]
    torch.manual_seed(0)
    q_TK = torch.randn(10, 16)
    angle_TJ = torch.arange(10).unsqueeze(1) * frequencies(16).float()
    first_TJ, second_TJ = q_TK.chunk(2, dim=-1)
    half_TK = torch.cat((-second_TJ, first_TJ), dim=-1)  # rotate_half
    changes = {}
    for name, wide_TK in (
        ("twice in a row", torch.cat((angle_TJ, angle_TJ), dim=-1)),
        ("each column twice", angle_TJ.repeat_interleave(2, dim=-1)),
    ):
        out_TK = q_TK * wide_TK.cos() + half_TK * wide_TK.sin()
        changes[name] = (out_TK.norm(dim=1) / q_TK.norm(dim=1) - 1).abs().max().item()
        print(f"rotate_half, cos {name}: lengths change by {changes[name]:.0%}")
    assert changes["twice in a row"] < 1e-5
    assert changes["each column twice"] > 0.05
    # --8<-- [end:mixed]
