"""Draw assets/attention.svg, the picture on the home page, with the guide's own code.

Not run by `make`: the result is in git. From the repository's root:

    python -m docs._theme.make_figure

Each row is a query, each dot a key; the area of a dot is its weight as a part of the
row's largest. Queries and keys are the sinusoidal encodings of 24 positions
(Vaswani et al. 2017, §3.5). One colour, readable on light and dark paper.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch

from snippets.foundations.scaled_dot_product import attend

TARGET = Path(__file__).parent / "assets" / "attention.svg"
POSITIONS, SIZE, STEP = 24, 32, 10


def weights() -> torch.Tensor:
    """Return the attention weights (POSITIONS, POSITIONS) between the encodings."""
    pos_T1 = torch.arange(POSITIONS).unsqueeze(1)
    rate_K = torch.exp(-math.log(1000) * torch.arange(0, SIZE, 2) / SIZE)
    x_TK = torch.cat([(pos_T1 * rate_K).sin(), (pos_T1 * rate_K).cos()], dim=-1)
    x_BHTK = (2 * x_TK)[None, None]
    one_BHSV = torch.eye(POSITIONS)[None, None]
    return attend(x_BHTK, x_BHTK, one_BHSV)[0, 0]


def main() -> None:
    """Write the picture."""
    weight_TS = weights()
    assert weight_TS.argmax(-1).tolist() == list(range(POSITIONS)), (
        "the alt text says so"
    )
    part_TS = weight_TS / weight_TS.amax(-1, keepdim=True)
    side = POSITIONS * STEP
    rows = []
    for row, parts in enumerate(part_TS.tolist()):
        for column, part in enumerate(parts):
            radius = 0.46 * STEP * math.sqrt(part)
            if radius >= 0.3:
                x, y = (STEP * (place + 0.5) for place in (column, row))
                rows.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:.1f}"/>')
    TARGET.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}" '
        f'fill="#1f8a8a">{"".join(rows)}</svg>\n',
        "utf-8",
    )
    print(f"{TARGET.name}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
