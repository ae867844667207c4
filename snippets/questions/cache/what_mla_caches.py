"""What MLA caches, and why its positions need a key of their own."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.decoding.kv_cache import rotate


# --8<-- [start:turn]
def turn(x_K: Tensor, position: int) -> Tensor:
    """Rotate one vector to its position (RoPE)."""
    return rotate(x_K.reshape(1, 1, 1, -1), position).flatten()


# --8<-- [end:turn]


if __name__ == "__main__":
    # --8<-- [start:numbers]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    heads, size, rank, rotated = 128, 128, 512, 64  # DeepSeek-V2
    kept = {
        "MHA: all keys and values": 2 * heads * size,
        "MLA: latent and rotated key": rank + rotated,
        "rotated key in every head": rank + heads * rotated,
        "RoPE on expanded keys, cached": heads * size + rank,
    }
    for name, numbers in kept.items():
        ratio = numbers / (2 * size)
        print(f"{name:30} {numbers:6} numbers = {ratio:6.2f} kv heads")
    assert kept["MLA: latent and rotated key"] == 2.25 * 2 * size
    # --8<-- [end:numbers]

    # --8<-- [start:absorbed]
    torch.manual_seed(0)
    q_K, up_KR, c_R = (torch.randn(n).double() for n in (16, (16, 8), 8))
    for t, s in ((0, 0), (5, 2), (105, 102)):
        plain = q_K @ (up_KR @ c_R)
        assert torch.isclose(plain, (q_K @ up_KR) @ c_R)  # no positions: absorbed
        right = turn(q_K, t) @ turn(up_KR @ c_R, s)
        absorbed = (turn(q_K, t) @ up_KR) @ c_R
        latent = turn(q_K, t) @ (up_KR @ turn(c_R, s))
        print(
            f"t = {t:3}, s = {s:3}: rotated key {right.item():7.3f},"
            f" absorbed query {absorbed.item():7.3f}, rotated latent {latent.item():7.3f}"
        )
    # --8<-- [end:absorbed]

    # --8<-- [start:per-distance]
    torch.manual_seed(0)
    query_KD, up_KR = torch.randn(16, 12).double(), torch.randn(16, 8).double()
    change = {}
    for distance in (0, 1, 10, 100):
        moved_KR = torch.stack([turn(up_R, -distance) for up_R in up_KR.T], dim=1)
        merged_DR = query_KD.T @ moved_KR  # what would have to be absorbed
        if distance == 0:
            first_DR = merged_DR
        change[distance] = ((merged_DR - first_DR).norm() / first_DR.norm()).item()
    print("the matrix to absorb, against distance 0:")
    print({d: f"{value:.0%}" for d, value in change.items()})
    assert change[0] < 1e-12
    assert min(change[d] for d in (1, 10, 100)) > 0.1
    # --8<-- [end:per-distance]

    # --8<-- [start:decoupled]
    torch.manual_seed(0)
    q_K, up_KR, c_R = (torch.randn(n).double() for n in (16, (16, 8), 8))
    q_U, k_U = torch.randn(2, 4).double()
    score = {}
    for t, s in ((5, 2), (105, 102), (5, 3)):
        score[t, s] = (q_K @ up_KR) @ c_R + turn(q_U, t) @ turn(k_U, s)
        print(f"t = {t:3}, s = {s:3}: {score[t, s].item():.6f}")
    assert torch.isclose(score[5, 2], score[105, 102])  # the distance alone counts
    assert not torch.isclose(score[5, 2], score[5, 3])
    # --8<-- [end:decoupled]
