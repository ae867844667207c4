"""What the scores of one head can express, and how sharp they have to be."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:circle]
def circle(S: int) -> Tensor:
    """Return S keys of size 2, evenly spaced on the unit circle (S, 2)."""
    angle_S = torch.arange(S) * 2 * math.pi / S
    return torch.stack((angle_S.cos(), angle_S.sin()), dim=1)


def winners(k_SK: Tensor) -> int:
    """Count the keys that get the largest score from one of many random queries."""
    q_TK = torch.randn(20_000, k_SK.shape[1])
    return len((q_TK @ k_SK.T).argmax(-1).unique())


# --8<-- [end:circle]


# --8<-- [start:sharpness]
def sharpness_for(S: int, weight: float = 0.9) -> float:
    """Return the factor on q·k at which a key on the circle looks up itself."""
    k_S2 = circle(S).double()
    low, high = 0.0, 1e6
    for _ in range(60):
        middle = (low + high) / 2
        found = torch.softmax(middle * k_S2 @ k_S2[0], dim=0)[0].item()
        low, high = (low, middle) if found > weight else (middle, high)
    return high


# --8<-- [end:sharpness]

if __name__ == "__main__":
    # --8<-- [start:mean-and-copy]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    k_S2, v_SV = circle(8), torch.randn(8, 3)
    mean_V = torch.softmax(0.0 * k_S2 @ k_S2[5], dim=0) @ v_SV
    copy_V = torch.softmax(500.0 * k_S2 @ k_S2[5], dim=0) @ v_SV
    assert mean_V.allclose(v_SV.mean(0), atol=1e-6)
    assert copy_V.allclose(v_SV[5], atol=1e-6)
    print("factor 0 is the mean, factor 500 copies value 5")
    # --8<-- [end:mean-and-copy]

    # --8<-- [start:reachable]
    torch.manual_seed(0)
    count = {
        "size 1, on a line": winners(torch.arange(16.0).unsqueeze(1) - 7.5),
        "size 2, on a circle": winners(circle(16)),
        "size 2, half of them inside": winners(torch.cat([circle(8), 0.5 * circle(8)])),
    }
    for name, keys in count.items():
        print(f"{name:27}: {keys:2} of 16 keys can win")
    assert list(count.values()) == [2, 16, 8]
    # --8<-- [end:reachable]

    # --8<-- [start:how-sharp]
    torch.manual_seed(0)
    needed = {size: sharpness_for(size) for size in (8, 32, 128, 512)}
    print("factor for a weight of 0.9:", {n: f"{f:.0f}" for n, f in needed.items()})
    assert round(needed[128] / needed[32]) == round(needed[512] / needed[128]) == 16
    # --8<-- [end:how-sharp]

    # --8<-- [start:two-at-once]
    torch.manual_seed(0)
    pair_2V = torch.randn(2, 3)  # who chases, and who is chased
    swapped_2V = pair_2V.flip(0)
    same = {
        "one head": pair_2V.mean(0).equal(swapped_2V.mean(0)),
        "two heads": pair_2V.flatten().equal(swapped_2V.flatten()),
    }
    print("“who chases whom” reversed, same output:", same)
    assert same == {"one head": True, "two heads": False}
    # --8<-- [end:two-at-once]
