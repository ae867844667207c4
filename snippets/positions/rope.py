"""Rotary position embedding: queries and keys turned by their positions."""

# --8<-- [start:imports]
from functools import partial

import matplotlib.pyplot as plt
import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.foundations.scaled_dot_product import attend
from snippets.properties.cost import count_flops


# --8<-- [start:check-rotation]
def check_rotation(x_BHTK: Tensor, pos_BT: Tensor, theta_J: Tensor) -> None:
    """Raise a ValueError that names the first argument that does not fit."""
    x, pos, theta = tuple(x_BHTK.shape), tuple(pos_BT.shape), tuple(theta_J.shape)
    if len(x) != 4 or x[3] % 2:
        raise ValueError(f"x has shape {x}, expected 4 axes, the last of even size")
    if pos != (x[0], x[2]):
        raise ValueError(f"pos has shape {pos}, expected {(x[0], x[2])}")
    if pos_BT.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"pos has {pos_BT.dtype}, expected torch.int32 or torch.int64")
    if theta != (x[3] // 2,):
        raise ValueError(f"theta has shape {theta}, expected {(x[3] // 2,)}")


# --8<-- [end:check-rotation]


# --8<-- [start:frequencies]
def frequencies(size: int, base: float = 10000.0) -> Tensor:
    """Return the angle a position turns each pair by (Su et al. 2021, §3.2).

    Returns (J,) with J = size / 2, in radians, in float64: base^(-2j / size). Raises
    ValueError unless size is even and positive and base is above 1.
    """
    if size < 2 or size % 2:
        raise ValueError(f"size is {size}, expected a positive even number")
    if base <= 1:
        raise ValueError(f"base is {base}, expected a number above 1")
    return base ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)


# --8<-- [end:frequencies]


# --8<-- [start:turn]
def turn(
    a_BHTJ: Tensor, b_BHTJ: Tensor, pos_BT: Tensor, theta_J: Tensor
) -> tuple[Tensor, Tensor]:
    """Turn the points (a, b) counterclockwise by position times frequency.

    Angles are computed in float64, the rotation in float32 at least.
    """
    wide = torch.promote_types(a_BHTJ.dtype, torch.float32)
    angle_B1TJ = (pos_BT.double().unsqueeze(-1) * theta_J.double()).unsqueeze(1)
    cos_B1TJ, sin_B1TJ = angle_B1TJ.cos().to(wide), angle_B1TJ.sin().to(wide)
    a_BHTJ, b_BHTJ = a_BHTJ.to(wide), b_BHTJ.to(wide)
    return a_BHTJ * cos_B1TJ - b_BHTJ * sin_B1TJ, a_BHTJ * sin_B1TJ + b_BHTJ * cos_B1TJ


# --8<-- [end:turn]


# --8<-- [start:rotate]
def rotate_pairs(x_BHTK: Tensor, pos_BT: Tensor, theta_J: Tensor) -> Tensor:
    """Rotate with neighbors as pairs, (x0, x1), (x2, x3), …: interleaved.

    Returns (B, H, T, K) in the dtype of x. Raises ValueError when sizes do not fit.
    """
    check_rotation(x_BHTK, pos_BT, theta_J)
    pair_BHTJ = turn(x_BHTK[..., 0::2], x_BHTK[..., 1::2], pos_BT, theta_J)
    return torch.stack(pair_BHTJ, dim=-1).flatten(-2).to(x_BHTK.dtype)


def rotate_halves(x_BHTK: Tensor, pos_BT: Tensor, theta_J: Tensor) -> Tensor:
    """Rotate with channel j and channel j + K/2 as a pair: half-split.

    Returns (B, H, T, K) in the dtype of x. Raises ValueError when sizes do not fit.
    """
    check_rotation(x_BHTK, pos_BT, theta_J)
    pair_BHTJ = turn(*x_BHTK.chunk(2, dim=-1), pos_BT, theta_J)
    return torch.cat(pair_BHTJ, dim=-1).to(x_BHTK.dtype)


# --8<-- [end:rotate]


# --8<-- [start:convert]
def to_halves(x_any: Tensor) -> Tensor:
    """Reorder the last axis from interleaved to half-split: even channels, then odd."""
    return x_any.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)


def rows_to_halves(weight_any: Tensor, heads: int) -> Tensor:
    """Reorder the rows of a projection to queries or keys, head by head.

    `weight_any` is the weight (heads · K, D) of an nn.Linear, or its bias. Raises
    ValueError unless the rows are an even number for each head.
    """
    rows = len(weight_any)
    if heads < 1 or rows % (2 * heads):
        raise ValueError(
            f"weight has {rows} rows, expected an even number for each of {heads} heads"
        )
    return weight_any.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


# --8<-- [end:convert]


# --8<-- [start:positions]
def positions(keep_BT: Tensor) -> Tensor:
    """Return positions that count each row's tokens from 0; padding gets -1.

    `keep_BT` is boolean, True = a token. Returns (B, T), int64. Raises ValueError for
    another dtype.
    """
    if keep_BT.dtype != torch.bool:
        raise ValueError(f"keep has {keep_BT.dtype}, expected torch.bool")
    return (keep_BT.cumsum(dim=1) - 1).masked_fill(~keep_BT, -1)


# --8<-- [end:positions]


# --8<-- [start:attention]
def rotary_attention(
    q_BHTK: Tensor,
    k_BHTK: Tensor,
    v_BHTV: Tensor,
    pos_BT: Tensor,
    theta_J: Tensor,
    cache_any: tuple[Tensor, Tensor, Tensor] | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Attend causally by position, to the tokens given and to those cached before.

    A negative position is padding. Returns the output (B, H, T, V) and the cache of
    the next call: rotated keys (B, H, S, K), values (B, H, S, V), positions (B, S).
    Raises ValueError when sizes do not fit.
    """
    q_BHTK = rotate_halves(q_BHTK, pos_BT, theta_J)
    k_BHTK = rotate_halves(k_BHTK, pos_BT, theta_J)
    k_BHSK, v_BHSV, pos_BS = k_BHTK, v_BHTV, pos_BT
    if cache_any is not None:  # its keys are rotated already
        k_BHSK = torch.cat((cache_any[0], k_BHTK), dim=2)
        v_BHSV = torch.cat((cache_any[1], v_BHTV), dim=2)
        pos_BS = torch.cat((cache_any[2], pos_BT), dim=1)
    pos_B1S = pos_BS.unsqueeze(1)
    mask_B1TS = ((pos_B1S >= 0) & (pos_B1S <= pos_BT.unsqueeze(2))).unsqueeze(1)
    mask_BHTS = mask_B1TS.expand(-1, q_BHTK.shape[1], -1, -1)
    return attend(q_BHTK, k_BHSK, v_BHSV, mask_BHTS), (k_BHSK, v_BHSV, pos_BS)


# --8<-- [end:attention]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    theta_J = frequencies(64)
    q_BHTK, k_BHTK = torch.randn(1, 1, 1, 64), torch.randn(1, 1, 1, 64)

    def score(m: int, n: int, rotate=rotate_halves) -> float:
        """Return the dot product of q at position m and k at position n."""
        q_any = rotate(q_BHTK, torch.tensor([[m]]), theta_J)
        k_any = rotate(k_BHTK, torch.tensor([[n]]), theta_J)
        return (q_any * k_any).sum().item()

    for m, n in ((5, 2), (1005, 1002), (1000005, 1000002), (5, 3), (2, 5)):
        print(f"m = {m:7}, n = {n:7}, m - n = {m - n:2}: {score(m, n):7.3f}")
    # --8<-- [end:first-look]

    # --8<-- [start:cost]
    for length in (1024, 2048):
        x_any = torch.randn(1, 2, length, 64)
        pos_any = torch.arange(length).expand(1, length)
        rotate = partial(rotate_halves, x_any, pos_any, theta_J)
        whole = partial(attend, x_any, x_any, x_any)
        turning = 2 * x_any.numel() // 2 * 6  # q and k, 6 operations for each pair
        print(
            f"T = {length:4}: rotating q and k {turning / 1e6:.2f} MFLOPs, matrix products"
            f" {count_flops(rotate)}; attention {count_flops(whole) / 1e6:.1f} MFLOPs"
        )
    # --8<-- [end:cost]

    # --8<-- [start:distance]
    far_N = torch.arange(4096)
    for base, style in ((10000, "-"), (500000, "--")):
        theta_J = frequencies(128, base)
        mean_N = torch.cos(far_N.unsqueeze(1) * theta_J).mean(dim=1)
        plt.semilogx(far_N[1:].cpu(), mean_N[1:].cpu(), style, label=f"base {base}")
        slowest = 2 * torch.pi / theta_J[-1].item()
        print(
            f"base {base:6}: at distance 4095 {mean_N[-1]:.2f},"
            f" the slowest pair turns once in {slowest:.0f} positions"
        )
    plt.xlabel("distance m - n")
    plt.ylabel("q · k / K, all pairs equal")
    plt.legend()
    plt.show()
    # --8<-- [end:distance]

    # --8<-- [start:identity]
    theta_J, q_BHTK = frequencies(64), torch.randn(1, 1, 1, 64)
    k_BHTK = torch.randn(1, 1, 1, 64)
    for name, rotate in (
        ("rotary", rotate_halves),
        ("identity", lambda x_BHTK, pos_BT, theta_J: x_BHTK),
    ):
        same = abs(score(3, 3, rotate) - score(9, 9, rotate)) < 1e-3
        shifted = abs(score(5, 2, rotate) - score(9, 6, rotate)) < 1e-3
        differs = abs(score(5, 2, rotate) - score(5, 4, rotate)) > 1e-3
        print(f"{name}: offset 0 {same}, offset 3 {shifted}, 3 unlike 1 {differs}")
    # --8<-- [end:identity]

    # --8<-- [start:mixed]
    for p in (0, 1, 20):
        pos_BT = torch.tensor([[p]])
        right_111K = rotate_pairs(q_BHTK, pos_BT, theta_J)
        wrong_111K = rotate_halves(q_BHTK, pos_BT, theta_J)
        off = (right_111K - wrong_111K).abs().max().item()
        print(f"position {p:2}: the layouts differ by {off:.2f}")
    # --8<-- [end:mixed]

    # --8<-- [start:low-precision]
    pos_N = torch.arange(4096)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        angle_NJ = pos_N.to(dtype).unsqueeze(1) * theta_J.to(dtype)
        exact_NJ = pos_N.unsqueeze(1) * theta_J
        off = (angle_NJ.double().cos() - exact_NJ.cos()).abs().max().item()
        kinds = pos_N.to(dtype).unique().numel()
        print(f"{dtype}: {kinds} different positions of 4096, cos off by {off:.4f}")
    # --8<-- [end:low-precision]

    # --8<-- [start:cache]
    q_BHTK, k_BHTK, v_BHTK = torch.randn(3, 1, 2, 6, 64).unbind(0)
    pos_BT = torch.arange(6).unsqueeze(0)
    whole_BHTK, _ = rotary_attention(q_BHTK, k_BHTK, v_BHTK, pos_BT, theta_J)
    q_BH1K, k_BH1K = q_BHTK[:, :, 5:], k_BHTK[:, :, 5:]
    for name, prompt_start, new in (
        ("prompt 0 to 4, new token at 5", 0, 5),
        ("prompt 0 to 4, new token at 0", 0, 0),
        ("prompt 7 to 11, new token at 12", 7, 12),
        ("prompt 7 to 11, new token at 5", 7, 5),
    ):
        at_BP, at_11 = pos_BT[:, :5] + prompt_start, torch.tensor([[new]])
        old_BHPK = rotate_halves(k_BHTK[:, :, :5], at_BP, theta_J)
        new_BH1K = rotate_halves(k_BH1K, at_11, theta_J)
        turned_BH1K = rotate_halves(q_BH1K, at_11, theta_J)
        k_BHSK = torch.cat((old_BHPK, new_BH1K), dim=2)
        out_BH1K = attend(turned_BH1K, k_BHSK, v_BHTK)
        off = (out_BH1K - whole_BHTK[:, :, 5:]).abs().max().item()
        print(f"{name}: off by {off:.2f}")
    # --8<-- [end:cache]
