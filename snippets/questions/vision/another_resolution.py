"""A ViT at another resolution: resize the position table as a grid, not as a list."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor
from torch.nn import functional as F

# --8<-- [end:imports]


# --8<-- [start:tables]
def true_table(side: int) -> Tensor:
    """Return a smooth position table whose values are known at every resolution.

    One row for the class token, then side² rows of 8 numbers: sine and cosine of the
    place of a patch's center, once for its row and once for its column.
    """
    center_X1 = (torch.arange(side) + 0.5).unsqueeze(1) / side
    angle_X2 = math.pi * center_X1 * torch.tensor([1.0, 2.0])
    code_X4 = torch.cat((angle_X2.sin(), angle_X2.cos()), dim=1)
    row_XX4 = code_X4.unsqueeze(1).expand(-1, side, -1)
    grid_P8 = torch.cat((row_XX4, row_XX4.transpose(0, 1)), dim=2).flatten(0, 1)
    return torch.cat((torch.full((1, 8), 0.5), grid_P8))


def resize(table_ND: Tensor, side: int) -> Tensor:
    """Resize the patches' part of a table to side × side; the class token stays."""
    old = math.isqrt(len(table_ND) - 1)
    grid_1DXX = table_ND[1:].T.unflatten(1, (old, old)).unsqueeze(0)
    new_1DYY = F.interpolate(grid_1DXX, (side, side), mode="bicubic")
    return torch.cat((table_ND[:1], new_1DYY[0].flatten(1).T))


def resize_as_list(table_MD: Tensor, side: int) -> Tensor:
    """Resize along the list of patches, as if it were a line: wrong."""
    line_1DN = table_MD[1:].T.unsqueeze(0)
    longer_1DP = F.interpolate(line_1DN, side**2, mode="linear")
    return torch.cat((table_MD[:1], longer_1DP[0].T))


# --8<-- [end:tables]

if __name__ == "__main__":
    # --8<-- [start:resize]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    old_P8, wanted_N8 = true_table(224 // 16), true_table(384 // 16)
    print(f"224: {len(old_P8)} positions, 384: {len(wanted_N8)} positions")
    error = {}
    for name, made_N8 in (
        ("as a grid", resize(old_P8, 24)),
        ("as a list", resize_as_list(old_P8, 24)),
        ("first rows, rest new", torch.cat((old_P8, torch.zeros(380, 8)))),
    ):
        error[name] = (made_N8 - wanted_N8).abs().mean().item()
        print(f"{name:20}: mean error {error[name]:.4f}")
    assert error["as a grid"] < 0.01 < 0.1 < error["as a list"]
    assert resize(old_P8, 14).allclose(old_P8, atol=1e-6)
    # --8<-- [end:resize]

    # --8<-- [start:cost]
    print("pixels  tokens  scores a head  against 224")
    for pixels in (224, 384, 512):
        tokens = 1 + (pixels // 16) ** 2
        print(f"{pixels:6} {tokens:7} {tokens**2:14,} {tokens**2 / 197**2:12.1f}")
    # --8<-- [end:cost]
