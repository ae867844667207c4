"""A photo of cell nuclei with its masks, cut into strips that share no nucleus."""

# --8<-- [start:imports]
import torch
from skimage.io import imread
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.applications.package_data import package_file

# --8<-- [start:load]
PACKAGE = "stardist==0.9.2"
DIGESTS = {
    "img2d.tif": "f9ccc1571b92c861ff87e28463068b43f61bd47357ed0503f711e5cd1eb97750",
    "mask2d.tif": "59ad5e820b7982ca9d13e946fa6e7f64e2714899e00a2ae6c69aa79aad53d46f",
}
COLUMNS = {"train": (0, 256), "validation": (288, 352), "test": (384, 512)}


def load_nuclei() -> tuple[Tensor, Tensor]:
    """Return the photo, from 0 to 1, and the number of each pixel's nucleus, 0 for none.

    Both are (X, Y). Raises what `package_file` raises.
    """
    photo_XY, mask_XY = (
        torch.tensor(
            imread(package_file(PACKAGE, f"images/{name}", digest)).astype(int),
            device=torch.get_default_device(),
        )
        for name, digest in DIGESTS.items()
    )
    return photo_XY / 255, mask_XY


def strip(picture_XY: Tensor, part: str) -> Tensor:
    """Return the columns of "train", "validation" or "test"."""
    first, end = COLUMNS[part]
    return picture_XY[:, first:end]


# --8<-- [end:load]


# --8<-- [start:crops]
def tiles(picture_XY: Tensor, size: int = 64, step: int = 64) -> Tensor:
    """Cut into squares, row by row; returns (B, size, size)."""
    return picture_XY.unfold(0, size, step).unfold(1, size, step).flatten(0, 1)


def random_crops(
    photo_XY: Tensor, mask_XY: Tensor, count: int, size: int = 64
) -> tuple[Tensor, Tensor]:
    """Return crops of photo and mask, (count, size, size), turned over at random."""
    X, Y = mask_XY.shape
    rows = torch.randint(X - size + 1, (count,)).tolist()
    columns = torch.randint(Y - size + 1, (count,)).tolist()
    pairs_2CC = []
    for row, column, turn in zip(
        rows, columns, torch.randint(8, (count,)).tolist(), strict=True
    ):
        here = (slice(row, row + size), slice(column, column + size))
        pair_2CC = torch.stack([photo_XY[here], mask_XY[here].to(photo_XY)])
        pair_2CC = pair_2CC.flip([1]) if turn & 1 else pair_2CC
        pair_2CC = pair_2CC.flip([2]) if turn & 2 else pair_2CC
        pairs_2CC.append(pair_2CC.mT if turn & 4 else pair_2CC)
    crop_BCC, number_BCC = torch.stack(pairs_2CC, dim=1)
    return crop_BCC, number_BCC.long()


# --8<-- [end:crops]
