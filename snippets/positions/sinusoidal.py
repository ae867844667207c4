"""Sinusoidal positions: every position is a set of clock hands, a shift turns them."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
import matplotlib.pyplot as plt

from snippets.properties.cost import count_flops, peak_bytes, plot_growth


# --8<-- [start:frequencies]
def frequencies(size: int, base: float = 10000.0) -> Tensor:
    """Return ω_i = base^(-2i/D) for each pair of D = size channels, in float64.

    Returns (F,) with F = D / 2 rounded up, in radians per position. Raises
    ValueError when size is less than 1.
    """
    if size < 1:
        raise ValueError(f"size is {size}, expected at least 1")
    even_F = torch.arange(0, size, 2, dtype=torch.float64)
    return base ** (-even_F / size)


# --8<-- [end:frequencies]


# --8<-- [start:check-positions]
def check_positions(position_T: Tensor) -> None:
    """Raise a ValueError for another number of axes or a dtype that is too coarse."""
    if position_T.dim() != 1:
        raise ValueError(f"position has {position_T.dim()} axes, expected 1")
    # bfloat16 has no 257 and float16 no 2049: positions would fall together.
    if position_T.dtype in (torch.bool, torch.float16, torch.bfloat16):
        raise ValueError(
            f"position has {position_T.dtype}, expected integers, float32 or float64"
        )


# --8<-- [end:check-positions]


# --8<-- [start:sinusoidal]
def sinusoidal(position_T: Tensor, size: int, base: float = 10000.0) -> Tensor:
    """Encode positions as sines and cosines in turn (Vaswani et al. 2017, §3.5).

    Channel 2i is sin(ω_i p), channel 2i + 1 is cos(ω_i p); an odd size ends with a
    sine. Positions are integers or real numbers. Returns (T, D) in float64; raises
    ValueError for a dtype that cannot hold positions.
    """
    check_positions(position_T)
    omega_F = frequencies(size, base).to(position_T.device)
    angle_TF = position_T.double().unsqueeze(1) * omega_F
    pair_TF2 = torch.stack([angle_TF.sin(), angle_TF.cos()], dim=2)
    return pair_TF2.flatten(1)[:, :size]


# --8<-- [end:sinusoidal]


# --8<-- [start:add-positions]
def add_positions(x_BTD: Tensor, start: int = 0) -> Tensor:
    """Add the codes of positions start, start + 1, … to embeddings; returns (B, T, D).

    `start` is the number of tokens already in the cache. The sum has the dtype of x.
    Raises ValueError unless x has three axes and start is at least 0.
    """
    if x_BTD.dim() != 3:
        raise ValueError(f"x has shape {tuple(x_BTD.shape)}, expected 3 axes")
    if start < 0:
        raise ValueError(f"start is {start}, expected at least 0")
    _, T, D = x_BTD.shape
    position_T = torch.arange(start, start + T, device=x_BTD.device)
    return x_BTD + sinusoidal(position_T, D).to(x_BTD.dtype)


# --8<-- [end:add-positions]


# --8<-- [start:shift]
def shift(code_TD: Tensor, offset: float, base: float = 10000.0) -> Tensor:
    """Turn the codes of positions p into those of p + offset, without knowing p.

    Each pair (sin, cos) is rotated by the angle ω_i · offset. Returns (T, D); raises
    ValueError for an odd D, where the last sine has no cosine to rotate with.
    """
    if code_TD.dim() != 2 or code_TD.shape[1] % 2:
        raise ValueError(
            f"code has shape {tuple(code_TD.shape)}, expected (positions, even size)"
        )
    omega_F = frequencies(code_TD.shape[1], base).to(code_TD)
    sin_F, cos_F = (omega_F * offset).sin(), (omega_F * offset).cos()
    sin_TF, cos_TF = code_TD[:, 0::2], code_TD[:, 1::2]
    pair_TF2 = torch.stack(
        [sin_TF * cos_F + cos_TF * sin_F, cos_TF * cos_F - sin_TF * sin_F], dim=2
    )
    return pair_TF2.flatten(1)


# --8<-- [end:shift]


# --8<-- [start:concatenated]
def concatenated(code_TD: Tensor) -> Tensor:
    """Reorder the channels: all sines first, then all cosines; returns (T, D)."""
    return torch.cat([code_TD[:, 0::2], code_TD[:, 1::2]], dim=1)


# --8<-- [end:concatenated]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    for position, row in enumerate(sinusoidal(torch.arange(3), size=4).tolist()):
        print(position, " ".join(f"{number:7.4f}" for number in row))
    wave_any = 2 * math.pi / frequencies(512)
    print(f"D = 512: wavelengths {wave_any[0]:.2f} to {wave_any[-1]:.0f} positions")
    # --8<-- [end:first-look]

    # --8<-- [start:projected]
    T, D = 128, 64
    position_T = torch.arange(T)
    code_TD = sinusoidal(position_T, D)
    q_DD, k_DD = torch.randn(2, D, D, dtype=torch.float64) / math.sqrt(D)
    for name, score_TT in (
        ("codes alone  ", code_TD @ code_TD.T),
        ("with W_Q, W_K", (code_TD @ q_DD.T) @ (code_TD @ k_DD.T).T),
    ):
        same_any = score_TT.diagonal(5)  # all pairs five positions apart
        print(f"{name}: distance 5 scores {same_any.min():.2f} to {same_any.max():.2f}")
    # --8<-- [end:projected]

    # --8<-- [start:cost]
    lengths = [512, 1024, 2048, 4096, 8192]
    peaks = [peak_bytes(lambda n=n: sinusoidal(torch.arange(n), 512)) for n in lengths]
    flops = count_flops(lambda: add_positions(torch.zeros(1, 1024, 512)))
    print("FLOPs in matrix products:", flops)
    kept = sinusoidal(torch.arange(4096), 512).float().untyped_storage().nbytes()
    print(f"table of 4096 positions, D = 512, float32: {kept / 2**20:.0f} MiB")
    plot_growth(lengths, {"peak of sinusoidal": (peaks, 1)})
    plt.ylabel("bytes")
    plt.show()
    # --8<-- [end:cost]

    # --8<-- [start:picture]
    score_TT = code_TD @ code_TD.T
    _, (left, right) = plt.subplots(1, 2)
    left.imshow(code_TD[:64, :64].cpu().numpy(), cmap="viridis", aspect="auto")
    left.set(xlabel="channel", ylabel="position")
    for p in (32, 64, 96):
        distance_T = position_T - p
        right.plot(distance_T.cpu(), score_TT[p].cpu(), label=f"p = {p}")
    right.set(xlabel="distance q - p", ylabel="code(p) · code(q)")
    right.legend()
    plt.show()
    # --8<-- [end:picture]

    # --8<-- [start:half]
    far_P = torch.arange(1024)
    exact_PD = sinusoidal(far_P, D)
    for dtype in (torch.float16, torch.bfloat16):
        coarse_P = far_P.to(dtype)
        angle_PF = coarse_P.unsqueeze(1) * frequencies(D).to(dtype)
        error = (angle_PF.sin() - exact_PD[:, 0::2]).abs().max()
        late = (exact_PD.to(dtype) - exact_PD).abs().max()
        print(
            f"{dtype}: {coarse_P.unique().numel()} of 1024 positions differ;"
            f" error {error:.2f}, cast at the end {late:.1e}"
        )
    # --8<-- [end:half]

    # --8<-- [start:batch-axis]
    def seq_first(x_TBD: Tensor) -> Tensor:
        """Add the codes along the first axis, right for (T, B, D) only."""
        code_TD = sinusoidal(torch.arange(len(x_TBD)), x_TBD.shape[2])
        return x_TBD + code_TD.unsqueeze(1)

    for name, add in (("add_positions", add_positions), ("seq_first", seq_first)):
        first_TD, second_TD = add(torch.zeros(2, T, D))  # the input is (B, T, D)
        rows = len(first_TD.unique(dim=0))
        same = first_TD.equal(second_TD)
        print(f"{name}: {rows} different codes in a sample, samples alike: {same}")
    # --8<-- [end:batch-axis]

    # --8<-- [start:two-spacings]
    def tensor2tensor(position_T: Tensor, size: int) -> Tensor:
        """Divide by D/2 - 1, so that the slowest frequency is exactly 1/10000."""
        step = math.log(10000) / (size // 2 - 1)
        omega_F = torch.exp(-step * torch.arange(size // 2, dtype=torch.float64))
        angle_TF = position_T.double().unsqueeze(1) * omega_F
        return torch.cat([angle_TF.sin(), angle_TF.cos()], dim=1)

    theirs_TD = tensor2tensor(position_T, D)
    gap = (theirs_TD - concatenated(code_TD)).abs().max()
    wave = 2 * math.pi / frequencies(D)[-1]
    print(f"slowest wave: {wave:.0f} here, {2e4 * math.pi:.0f} there; gap {gap:.2f}")
    # --8<-- [end:two-spacings]
