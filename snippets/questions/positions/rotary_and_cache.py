"""Rotated keys in a cache: fine while positions stay, wrong when renumbered."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.positions.rope import frequencies, rotate_halves

if __name__ == "__main__":
    # --8<-- [start:evict]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    T, K = 20, 32
    k_11TK, v_11TK = torch.randn(2, 1, 1, T, K, dtype=torch.float64).unbind(0)
    q_111K = torch.randn(1, 1, 1, K, dtype=torch.float64)
    theta_J = frequencies(K)

    def rotate(x_any: Tensor, pos_any: Tensor) -> Tensor:
        """Rotate vectors (1, 1, n, K) to n positions."""
        return rotate_halves(x_any, pos_any.unsqueeze(0), theta_J)

    def output(at: int, k_any: Tensor, v_any: Tensor) -> Tensor:
        """Attend with the query at a position to rotated keys."""
        score_any = rotate(q_111K, torch.tensor([at])) @ k_any.mT / math.sqrt(K)
        return torch.softmax(score_any, dim=-1) @ v_any

    cached_11TK = rotate(k_11TK, torch.arange(T))  # rotated once, never touched again

    last_any = torch.arange(12, 20)
    score_111T = rotate(q_111K, torch.tensor([20])) @ cached_11TK.mT / math.sqrt(K)
    score_111T[..., :12] = -torch.inf
    masked_111K = torch.softmax(score_111T, dim=-1) @ v_11TK
    window_111K = output(20, cached_11TK[:, :, last_any], v_11TK[:, :, last_any])
    gaps = {"window, rotated keys": (window_111K - masked_111K).abs().max().item()}

    kept_any, new_any = torch.cat((torch.arange(4), last_any)), torch.arange(12)
    right_111K = output(
        12, rotate(k_11TK[:, :, kept_any], new_any), v_11TK[:, :, kept_any]
    )
    for name, k_any in (
        ("renumbered, rotated keys", cached_11TK[:, :, kept_any]),
        (
            "renumbered, rotated by the difference",
            rotate(cached_11TK[:, :, kept_any], new_any - kept_any),
        ),
    ):
        out_111K = output(12, k_any, v_11TK[:, :, kept_any])
        gaps[name] = (out_111K - right_111K).abs().max().item()

    # Another base: turn each key by its position times the change of frequencies.
    other_J, pos_1T = frequencies(K, 40_000), torch.arange(T).unsqueeze(0)
    out_by_keys = {}
    for name, k_any in (
        ("from the start", rotate_halves(k_11TK, pos_1T, other_J)),
        ("rotated keys", cached_11TK),
        (
            "rotated by the difference",
            rotate_halves(cached_11TK, pos_1T, other_J - theta_J),
        ),
    ):
        turned_111K = rotate_halves(q_111K, torch.tensor([[T]]), other_J)
        score_111T = turned_111K @ k_any.mT / math.sqrt(K)
        out_by_keys[name] = torch.softmax(score_111T, dim=-1) @ v_11TK
    for name in ("rotated keys", "rotated by the difference"):
        off_111K = out_by_keys[name] - out_by_keys["from the start"]
        gaps[f"new base, {name}"] = off_111K.abs().max().item()
    for name, gap in gaps.items():
        print(f"{name}: off by {gap:.2g}")
    assert min(gaps["renumbered, rotated keys"], gaps["new base, rotated keys"]) > 0.01
    assert gaps["window, rotated keys"] < 1e-10
    assert gaps["renumbered, rotated by the difference"] < 1e-10
    assert gaps["new base, rotated by the difference"] < 1e-10
    # --8<-- [end:evict]
