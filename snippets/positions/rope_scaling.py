"""Frequencies of rotary embedding for a longer context: PI, NTK-aware, YaRN, Llama 3."""

# --8<-- [start:imports]
import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.positions.rope import frequencies


# --8<-- [start:check-scaling]
def check_scaling(scale: float, trained: float, slow: float, fast: float) -> None:
    """Raise a ValueError that names the first argument that does not fit."""
    if scale < 1:
        raise ValueError(f"scale is {scale}, expected at least 1")
    if not 0 < slow < fast:
        raise ValueError(f"slow is {slow}, fast is {fast}: expected 0 < slow < fast")
    if trained < 2 * math.pi * slow:
        raise ValueError(
            f"trained is {trained}, expected at least {2 * math.pi * slow:.1f}"
            " positions, in which the fastest pair turns often enough"
        )


# --8<-- [end:check-scaling]


# --8<-- [start:turns]
def turns(theta_J: Tensor, trained: float) -> Tensor:
    """Return how often each pair turns within the trained length, (J,)."""
    return trained * theta_J / (2 * math.pi)


# --8<-- [end:turns]


# --8<-- [start:uniform]
def interpolate(theta_J: Tensor, scale: float) -> Tensor:
    """Slow all pairs alike: position interpolation (Chen et al. 2023). Returns (J,)."""
    check_scaling(scale, math.inf, 1, 2)
    return theta_J / scale


def ntk_aware(size: int, scale: float, base: float = 10000.0) -> Tensor:
    """Raise the base so that the slowest pair is slowed by `scale`, the first not.

    Returns (J,). Raises ValueError for a size below 4: one pair cannot do both.
    """
    check_scaling(scale, math.inf, 1, 2)
    if size < 4:
        raise ValueError(f"size is {size}, expected at least 4")
    return frequencies(size, base * scale ** (size / (size - 2)))


# --8<-- [end:uniform]


# --8<-- [start:by-parts]
def by_parts(
    size: int,
    scale: float,
    trained: float,
    base: float = 10000.0,
    slow: float = 1.0,
    fast: float = 32.0,
) -> Tensor:
    """Keep pairs that turn often, slow those that turn rarely, blend between them.

    In `trained` positions a pair above `fast` turns is kept, one below `slow` turns is
    slowed by `scale`; the share kept is linear in the turns between them (Peng et al.
    2023, NTK-by-parts). Returns (J,). Raises ValueError for impossible bounds.
    """
    check_scaling(scale, trained, slow, fast)
    theta_J = frequencies(size, base)
    kept_J = ((turns(theta_J, trained) - slow) / (fast - slow)).clamp(0, 1)
    return kept_J * theta_J + (1 - kept_J) * theta_J / scale


def llama3(
    size: int, scale: float = 8.0, trained: float = 8192, base: float = 500000.0
) -> Tensor:
    """Return the frequencies of Llama 3.1: by parts, bounds 1 and 4; (J,)."""
    return by_parts(size, scale, trained, base, slow=1.0, fast=4.0)


# --8<-- [end:by-parts]


# --8<-- [start:yarn]
def attention_factor(scale: float, mscale: float = 1.0, all_dim: float = 0.0) -> float:
    """Return what YaRN multiplies queries and keys with, each of them.

    0.1 · mscale · ln(scale) + 1; a model that puts part of it into the softmax itself
    (DeepSeek) divides by the same with `all_dim`. Raises ValueError below scale 1.
    """
    check_scaling(scale, math.inf, 1, 2)
    grown = 0.1 * math.log(scale)
    return (mscale * grown + 1) / (all_dim * grown + 1)


def yarn(
    size: int,
    scale: float,
    trained: float,
    base: float = 10000.0,
    slow: float = 1.0,
    fast: float = 32.0,
) -> tuple[Tensor, float]:
    """Return YaRN's frequencies (J,) as its code has them, and its attention factor.

    The same bounds as `by_parts`, rounded outwards to whole pairs, but the share kept
    is linear in the number of the pair. Raises ValueError for impossible bounds.
    """
    check_scaling(scale, trained, slow, fast)
    theta_J = frequencies(size, base)

    def pair_with(turned: float) -> float:
        """Return the (fractional) pair that turns so often in `trained` positions."""
        return size * math.log(trained / (2 * math.pi * turned)) / (2 * math.log(base))

    first = max(math.floor(pair_with(fast)), 0)
    last = min(math.ceil(pair_with(slow)), size - 1)
    ramp_J = torch.arange(size // 2, dtype=torch.float64) - first
    slowed_J = (ramp_J / max(last - first, 0.001)).clamp(0, 1)
    mixed_J = (1 - slowed_J) * theta_J + slowed_J * theta_J / scale
    return mixed_J, attention_factor(scale)


# --8<-- [end:yarn]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    plain_J = frequencies(128, 500000)
    maps = {
        "PI": interpolate(plain_J, 8),
        "NTK-aware": ntk_aware(128, 8, 500000),
        "YaRN": yarn(128, 8, 8192, 500000)[0],
        "Llama 3": llama3(128),
    }
    print("pair   turns in 8192", *(f"{name:>10}" for name in maps))
    for j in (0, 20, 30, 36, 63):
        slowed = [f"{(plain_J[j] / new_J[j]).item():10.2f}" for new_J in maps.values()]
        print(f"{j:4} {turns(plain_J, 8192)[j].item():15.2f}", *slowed)
    # --8<-- [end:first-look]

    # --8<-- [start:map]
    for (name, new_J), style in zip(maps.items(), ("-", "--", "-.", ":"), strict=True):
        plt.plot((plain_J / new_J).cpu(), style, label=name, linewidth=2)
    plt.xlabel("pair j, fast to slow")
    plt.ylabel("slowed by")
    plt.legend()
    plt.show()
    # --8<-- [end:map]

    # --8<-- [start:drift]
    theta_J = frequencies(128)
    seen_T, far_T = torch.arange(2048.0).double(), torch.arange(2048.0, 4096).double()

    def waves(pos_T: Tensor) -> Tensor:
        """Return the 2J cosines and sines of which every score is made, (T, K)."""
        angle_TJ = pos_T.unsqueeze(1) * theta_J
        return torch.cat((angle_TJ.cos(), angle_TJ.sin()), dim=1)

    picked_P = seen_T[torch.randperm(2048)[:256]]
    score_P1 = torch.rand(256, 1, dtype=torch.float64) * 2 - 1
    fit_K1 = torch.linalg.pinv(waves(picked_P), rtol=1e-4) @ score_P1
    for name, pos_S in (
        ("trained, 0 to 2047", seen_T),
        ("extrapolated, 2048 to 4095", far_T),
        ("interpolated, halves of 0 to 4095", torch.cat((seen_T, far_T)) / 2),
    ):
        print(f"{name}: largest |score| {(waves(pos_S) @ fit_K1).abs().max():.1f}")
    # --8<-- [end:drift]

    # --8<-- [start:cost]
    layers, heads, size = 32, 8, 128  # keys and values of Llama 3 8B, in bfloat16
    for length in (8192, 131072):
        each = 2 * layers * heads * size * 2
        table = llama3(size).numel()
        print(
            f"{length:6} positions: cache {each} B a token, {each * length / 2**30:.0f}"
            f" GiB; frequencies {table} numbers"
        )
    # --8<-- [end:cost]

    # --8<-- [start:ignored]
    for distance in (10, 100, 1000, 10000):
        off_J = (distance * plain_J).cos() - (distance * maps["Llama 3"]).cos()
        print(f"distance {distance:5}: cos off by {off_J.abs().max():.4f}")
    # --8<-- [end:ignored]

    # --8<-- [start:twice]
    factor = attention_factor(128)
    print(f"scale 128: factor {factor:.4f}, applied twice {factor**2:.4f}")
    print(f"scores times {factor**2:.2f}, applied twice times {factor**4:.2f}")
    print(f"mscale = all_dim = 1: factor {attention_factor(40, 1.0, 1.0):.4f}")
    # --8<-- [end:twice]

    # --8<-- [start:dynamic]
    for length in (4096, 5000, 8192):
        grown_J = ntk_aware(128, max(1, length / 4096))
        off_J = 4000 * (grown_J - frequencies(128))
        gap = (off_J.cos() - 1).abs().max()
        print(f"length {length}: a key cached at 4000 is off by up to {gap:.2f}")
    # --8<-- [end:dynamic]

    # --8<-- [start:ramps]
    for name, new_J in (
        ("linear in turns (paper)", by_parts(128, 8, 4096)),
        ("linear in pairs (code)", yarn(128, 8, 4096)[0]),
    ):
        plain_J = frequencies(128)
        kept_J = ((new_J / plain_J) * 8 - 1) / 7
        partly = ((kept_J > 1e-9) & (kept_J < 1 - 1e-9)).sum().item()
        print(f"{name}: {partly} pairs blended, pair 32 kept {kept_J[32].item():.2f}")
    # --8<-- [end:ramps]
