"""Swin's cyclic shift needs a mask, or opposite edges of the image attend."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]
from snippets.foundations.scaled_dot_product import attend


# --8<-- [start:cut]
def cut(map_XYK: Tensor, side: int) -> Tensor:
    """Cut a map into N windows of C = side² positions, (N, C, K)."""
    cut_IAJAK = map_XYK.unflatten(0, (-1, side)).unflatten(2, (-1, side))
    return cut_IAJAK.transpose(1, 2).flatten(0, 1).flatten(1, 2)


def shifted_mask(size: int, side: int, shift: int) -> Tensor:
    """Return which pairs of a rolled window were neighbors before, (N, C, C)."""
    band_X = (torch.arange(size) + side - shift) // side
    region_XX1 = (band_X[:, None] * size + band_X)[..., None]
    region_NC = cut(region_XX1.roll((-shift, -shift), (0, 1)), side)[..., 0]
    return region_NC[:, :, None] == region_NC[:, None, :]


def alone(map_XYK: Tensor) -> Tensor:
    """Attend inside one window of any size: keys and values are the positions."""
    x_11PK = map_XYK.flatten(0, 1)[None, None]
    return attend(x_11PK, x_11PK, x_11PK)[0, 0].view_as(map_XYK)


# --8<-- [end:cut]

if __name__ == "__main__":
    # --8<-- [start:wrap]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    size, side, shift = 8, 4, 2
    mask_NCC = shifted_mask(size, side, shift)
    allowed_N = mask_NCC.sum((1, 2))
    print("allowed pairs per window:", allowed_N.tolist(), "of", side**4)
    print(f"wrapped pairs: {(~mask_NCC).sum()} of {mask_NCC.numel()}")
    x_XYK = torch.randn(size, size, 16, dtype=torch.float64)
    x_N1CK = cut(x_XYK.roll((-shift, -shift), (0, 1)), side).unsqueeze(1)
    masked_N1CK = attend(x_N1CK, x_N1CK, x_N1CK, mask_NCC.unsqueeze(1))
    careless_N1CK = attend(x_N1CK, x_N1CK, x_N1CK)
    # The specification: nine windows of their true sizes, one after the other.
    true_XYK = torch.empty_like(x_XYK)
    for rows in (slice(0, 2), slice(2, 6), slice(6, 8)):
        for columns in (slice(0, 2), slice(2, 6), slice(6, 8)):
            true_XYK[rows, columns] = alone(x_XYK[rows, columns])
    true_N1CK = cut(true_XYK.roll((-shift, -shift), (0, 1)), side).unsqueeze(1)
    assert masked_N1CK.allclose(true_N1CK)
    error_N = (careless_N1CK - true_N1CK).abs().amax((1, 2, 3))
    print("without the mask, error:", [f"{x:.2f}" for x in error_N.tolist()])
    assert error_N[0] < 1e-12 < error_N[1:].min()
    # --8<-- [end:wrap]

    # --8<-- [start:reach]
    size, side, shift = 8, 4, 2
    place_XX1 = torch.arange(size * size).view(size, size, 1)
    reach = {}
    for name, move in (("plain", 0), ("shifted", shift)):
        place_NC = cut(place_XX1.roll((-move, -move), (0, 1)), side)[..., 0]
        sees_PP = torch.zeros(size**2, size**2)
        for place_C, sees_CC in zip(
            place_NC, shifted_mask(size, side, move), strict=True
        ):
            sees_PP[place_C[:, None], place_C] = sees_CC.float()
        reach[name] = sees_PP
    for name in ("plain", "shifted"):
        seen_P = (reach[name] @ reach["plain"] > 0).sum(1)
        print(f"plain, then {name:7}: {seen_P.min()} to {seen_P.max()} positions")
    plain_PP = reach["plain"]
    assert torch.equal(plain_PP @ plain_PP > 0, plain_PP > 0)
    # --8<-- [end:reach]
