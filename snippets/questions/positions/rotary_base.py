"""What the base of RoPE changes: the slow pairs, not the fast ones."""

# --8<-- [start:imports]
import math

import torch

# --8<-- [end:imports]
# isort: split
from snippets.positions.rope import frequencies

if __name__ == "__main__":
    # --8<-- [start:base]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    unfinished, slowest, far, rises = {}, {}, {}, {}
    for base in (10_000, 500_000):
        theta_J = frequencies(128, base)
        length_J = 2 * math.pi / theta_J  # positions for one turn
        unfinished[base] = (length_J > 8192).sum().item()
        slowest[base] = length_J[-1].item()
        mean_S = (torch.arange(8192).unsqueeze(1) * theta_J).cos().mean(dim=1)
        far[base] = mean_S[4096].item()
        rises[base] = (mean_S.diff() > 0).double().mean().item()
        print(
            f"base {base:6}: one turn in {length_J[0].item():.2f} to {slowest[base]:.0f}"
            f" positions, {unfinished[base]} of 64 pairs unfinished in 8192,"
            f" mean cos at 4096 {far[base]:.2f}, rising in {rises[base]:.0%} of the steps"
        )
    assert unfinished[500_000] > unfinished[10_000]
    assert far[500_000] > far[10_000] + 0.1
    assert min(rises.values()) > 0.1
    # --8<-- [end:base]
