"""Patches by reshape alone are strips of one color; the permutation makes squares."""

# --8<-- [start:imports]
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# --8<-- [end:imports]


# --8<-- [start:cuts]
def squares(image_B3XY: Tensor, side: int) -> Tensor:
    """Cut into squares, each flattened as (channel, row, column): (B, P, 3·side²)."""
    cut_B3IAJA = image_B3XY.unflatten(2, (-1, side)).unflatten(4, (-1, side))
    return cut_B3IAJA.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def reordered(image_B3XY: Tensor, side: int) -> Tensor:
    """Cut into squares, each flattened as (row, column, channel): (B, P, 3·side²)."""
    cut_B3IAJA = image_B3XY.unflatten(2, (-1, side)).unflatten(4, (-1, side))
    return cut_B3IAJA.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def strips(image_B3XY: Tensor, side: int) -> Tensor:
    """Cut by reshape alone: the right shape, other content."""
    return image_B3XY.reshape(len(image_B3XY), -1, 3 * side**2)


# --8<-- [end:cuts]

if __name__ == "__main__":
    # --8<-- [start:compare]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    layer = nn.Conv2d(3, 768, kernel_size=16, stride=16).double()
    linear_FD = layer.weight.flatten(1).T  # rows ordered as (channel, row, column)
    image_B3XY = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    wanted_BPD = layer(image_B3XY).flatten(2).transpose(1, 2)
    error = {}
    for way in (squares, reordered, strips):
        flat_BPF = way(image_B3XY, 16)
        made_BPD = flat_BPF @ linear_FD + layer.bias
        error[way.__name__] = (made_BPD - wanted_BPD).abs().max().item()
        print(f"{way.__name__:9} {tuple(flat_BPF.shape)}: {error[way.__name__]:.0e}")
    assert error["squares"] < 1e-12 < 0.1 < min(error["reordered"], error["strips"])
    # The order inside a square is a matter of the weights' rows, and nothing else.
    same_FD = layer.weight.permute(0, 2, 3, 1).flatten(1).T
    again_BPD = reordered(image_B3XY, 16) @ same_FD + layer.bias
    assert again_BPD.allclose(wanted_BPD)
    theirs_BPF = F.unfold(image_B3XY, kernel_size=16, stride=16).transpose(1, 2)
    assert theirs_BPF.equal(squares(image_B3XY, 16))
    print("parameters:", layer.weight.numel() + layer.bias.numel())
    # --8<-- [end:compare]

    # --8<-- [start:content]
    place_13XY = torch.arange(3 * 224 * 224).view(1, 3, 224, 224)
    found = {}
    for way in (squares, strips):
        first_F = way(place_13XY, 16)[0, 0]
        part_3F = torch.stack((first_F // 224**2, first_F // 224 % 224, first_F % 224))
        found[way.__name__] = [len(part_F.unique()) for part_F in part_3F]
        print(f"{way.__name__:7}: channels, rows, columns {found[way.__name__]}")
    assert found == {"squares": [3, 16, 16], "strips": [1, 4, 224]}
    # --8<-- [end:content]

    # --8<-- [start:remainder]
    layer = nn.Conv2d(3, 8, kernel_size=16, stride=16)
    wide_13XY = torch.randn(1, 3, 230, 230)
    assert layer(wide_13XY).equal(layer(wide_13XY[:, :, :224, :224]))
    print("230 pixels:", tuple(layer(wide_13XY).shape), "- 6 rows and columns unseen")
    try:
        squares(wide_13XY, 16)
    except RuntimeError:
        print("by reshape: RuntimeError")
    # --8<-- [end:remainder]
