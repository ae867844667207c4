"""ALiBi's slopes for 8 and for 12 heads, and how far each head sees."""

# --8<-- [start:imports]
import math

import torch

# --8<-- [end:imports]
# isort: split
from snippets.positions.alibi import slopes

if __name__ == "__main__":
    # --8<-- [start:slopes]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    eight, twelve, sixteen = (slopes(heads).tolist() for heads in (8, 12, 16))
    print(" 8 heads:", *(f"{slope:.4f}" for slope in eight))
    print("12 heads:", *(f"{slope:.4f}" for slope in twelve))
    assert eight == [2.0**-h for h in range(1, 9)]
    expected = eight + sixteen[0:8:2]
    assert all(math.isclose(a, b) for a, b in zip(twelve, expected, strict=True))
    row = [2 ** (-8 * h / 12) for h in range(1, 13)]
    common = len({round(slope, 6) for slope in row} & {round(s, 6) for s in twelve})
    print(f"one geometric row of 12 has only {common} of these slopes")
    assert common < 12
    distance_S = torch.arange(100_000, dtype=torch.float64)
    seen = {}
    for slope in (eight[0], eight[-1]):
        weight_S = torch.softmax(-slope * distance_S, dim=0)
        seen[slope] = 1 / weight_S[0].item()
        print(f"slope {slope:.4f}: as if {seen[slope]:.1f} keys, equally near")
    # --8<-- [end:slopes]
