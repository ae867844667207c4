"""Which pairs of RoPE meet unseen angles in a longer context, and what scaling does."""

# --8<-- [start:imports]
import math

import torch

# --8<-- [end:imports]
# isort: split
from snippets.positions.rope import frequencies
from snippets.positions.rope_scaling import interpolate, ntk_aware, yarn

if __name__ == "__main__":
    # --8<-- [start:unseen]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    trained, scale = 4096, 4
    plain_J = frequencies(128)
    seen_J = (trained - 1) * plain_J  # the largest angle of each pair in training
    maps = {
        "plain": plain_J,
        "PI": interpolate(plain_J, scale),
        "NTK-aware": ntk_aware(128, scale),
        "YaRN": yarn(128, scale, trained)[0],
    }
    unseen, step = {}, {}
    for name, theta_J in maps.items():
        reached_J = (trained * scale - 1) * theta_J
        new_J = (seen_J < 2 * math.pi) & (reached_J > seen_J * 1.001)
        unseen[name], step[name] = new_J.sum().item(), theta_J[0].item()
        print(
            f"{name:9}: {unseen[name]:2} of 64 pairs meet unseen angles,"
            f" the fastest turns {step[name]:.2f} per position"
        )
    assert unseen["plain"] > unseen["NTK-aware"] > unseen["PI"] == unseen["YaRN"] == 0
    assert step["PI"] < step["YaRN"] == step["plain"]
    # --8<-- [end:unseen]
