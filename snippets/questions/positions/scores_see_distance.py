"""Under RoPE a score depends on the offset of positions, at several offsets."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.positions.rope import frequencies, rotate_halves

if __name__ == "__main__":
    # --8<-- [start:offsets]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    q_111K, k_111K = torch.randn(2, 1, 1, 1, 64, dtype=torch.float64).unbind(0)
    theta_J = frequencies(64)

    def turned(x_111K: Tensor, position: int) -> Tensor:
        """Rotate a vector to its position."""
        return rotate_halves(x_111K, torch.tensor([[position]]), theta_J)

    def added(x_111K: Tensor, position: int) -> Tensor:
        """Add sines and cosines of the same frequencies instead."""
        return x_111K + torch.cat(
            ((position * theta_J).sin(), (position * theta_J).cos())
        )

    mean, spread = {}, {}
    for name, encode in (("RoPE", turned), ("added", added)):
        for offset in (-5, 0, 1, 5):
            scores = [
                (encode(q_111K, n + offset) * encode(k_111K, n)).sum().item()
                for n in (5, 8, 100, 10000, 100000)
            ]
            mean[name, offset] = sum(scores) / 5
            spread[name, offset] = max(scores) - min(scores)
            print(
                f"{name:5} m - n = {offset:2}: mean score {mean[name, offset]:6.2f},"
                f" varies by {spread[name, offset]:.2g}"
            )
    assert max(spread["RoPE", offset] for offset in (-5, 0, 1, 5)) < 1e-9
    assert len({round(mean["RoPE", offset], 1) for offset in (-5, 0, 1, 5)}) == 4
    assert min(spread["added", offset] for offset in (-5, 0, 1, 5)) > 1
    # --8<-- [end:offsets]
