"""Sliding-window attention: each query sees the last `window` positions, by chunks."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.foundations.scaled_dot_product import attend, check_sizes

# isort: split
# --8<-- [start:tools]
from functools import partial

import matplotlib.pyplot as plt

# --8<-- [end:tools]
# isort: split
from snippets.properties.cost import count_flops, peak_bytes, plot_growth


# --8<-- [start:check-window]
def check_window(
    q_BHTK: Tensor, k_BHSK: Tensor, v_BHSV: Tensor, window: int, chunk: int
) -> None:
    """Raise a ValueError that names the first argument that does not fit."""
    check_sizes(q_BHTK, k_BHSK, v_BHSV, None)
    T, S = q_BHTK.shape[2], k_BHSK.shape[2]
    if T > S:
        raise ValueError(
            f"query has {T} positions, key has {S}: queries are the last positions "
            "of the keys, so there cannot be more"
        )
    for name, size in (("window", window), ("chunk", chunk)):
        if size < 1:
            raise ValueError(f"{name} is {size}, expected at least 1")


# --8<-- [end:check-window]


# --8<-- [start:window-mask]
def window_mask(T: int, S: int, window: int) -> Tensor:
    """Show which keys a query sees: its own position and the window - 1 before it.

    The T queries are the last T of S positions. Returns booleans (T, S).
    """
    pos_T1, pos_S = torch.arange(S - T, S).unsqueeze(1), torch.arange(S)
    return (pos_S <= pos_T1) & (pos_S > pos_T1 - window)


# --8<-- [end:window-mask]


# --8<-- [start:window-attention]
def window_attention(
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSV: Tensor,
    window: int,
    chunk: int | None = None,
) -> Tensor:
    """Attend from the last T of S positions, each to the `window` ending at itself.

    Queries go in chunks of C (`window` unless given); a chunk sees J = W - 1 + C keys,
    so nothing of size T × S is made. Returns (B, H, T, V). Raises ValueError when
    sizes do not fit (Beltagy et al. 2020, §3.1, looking back only).
    """
    check_window(q_BHTK, k_BHSK, v_BHSV, window, window if chunk is None else chunk)
    T, S = q_BHTK.shape[2], k_BHSK.shape[2]
    W = min(window, S)
    C = min(T, W if chunk is None else chunk)
    N, J = -(-T // C), W - 1 + C
    before, after = W - 1 - (S - T), N * C - T  # before < 0 cuts what nobody sees
    q_BHNCK = F.pad(q_BHTK, (0, 0, 0, after)).unflatten(2, (N, C))
    k_BHNJK = F.pad(k_BHSK, (0, 0, before, after)).unfold(2, J, C).mT
    v_BHNJV = F.pad(v_BHSV, (0, 0, before, after)).unfold(2, J, C).mT
    pos_NJ = torch.arange(N).unsqueeze(1) * C + torch.arange(J) - before
    mask_NCJ = window_mask(C, J, W) & (pos_NJ >= 0).unsqueeze(1)
    # The M = B · H sequences are the batch, and chunks take the place of heads.
    q_MNCK, k_MNJK = q_BHNCK.flatten(0, 1), k_BHNJK.flatten(0, 1)
    mask_MNCJ = mask_NCJ.to(q_BHTK.device).expand(len(q_MNCK), N, C, J)
    out_MNCV = attend(q_MNCK, k_MNJK, v_BHNJV.flatten(0, 1), mask_MNCJ)
    return out_MNCV.flatten(1, 2)[:, :T].unflatten(0, q_BHTK.shape[:2])


# --8<-- [end:window-attention]


# --8<-- [start:rolling-cache]
class RollingCache:
    """The last `window` keys and values; position p stands in slot p mod window."""

    def __init__(self, window: int) -> None:
        """Begin empty; raise ValueError for a window below 1."""
        if window < 1:
            raise ValueError(f"window is {window}, expected at least 1")
        self.window, self.seen = window, 0
        self.k_BHWK: Tensor | None = None
        self.v_BHWV: Tensor | None = None

    def step(self, q_BHTK: Tensor, k_BHTK: Tensor, v_BHTV: Tensor) -> Tensor:
        """Attend from T new positions, one or many, to the past and to themselves.

        Returns (B, H, T, V). Raises ValueError when sizes do not fit.
        """
        T, W, seen = k_BHTK.shape[2], self.window, self.seen
        if self.k_BHWK is None:
            self.k_BHWK = k_BHTK.new_zeros(*k_BHTK.shape[:2], W, k_BHTK.shape[3])
            self.v_BHWV = v_BHTV.new_zeros(*v_BHTV.shape[:2], W, v_BHTV.shape[3])
        for what, came, other, expected in (
            ("query has positions", q_BHTK.shape[2], "key", T),
            ("key has batch", len(k_BHTK), "the cache", len(self.k_BHWK)),
        ):
            if came != expected:
                raise ValueError(
                    f"{what} {came}, {other} has {expected}: they must agree"
                )
        # Read before writing: the new keys overwrite what the first queries still see.
        old = [position % W for position in range(max(0, seen - W + 1), seen)]
        k_BHSK = torch.cat([self.k_BHWK[:, :, old], k_BHTK], dim=2)
        v_BHSV = torch.cat([self.v_BHWV[:, :, old], v_BHTV], dim=2)
        out_BHTV = window_attention(q_BHTK, k_BHSK, v_BHSV, W)
        self.seen, kept = seen + T, min(T, W)
        new = [position % W for position in range(self.seen - kept, self.seen)]
        self.k_BHWK[:, :, new] = k_BHTK[:, :, T - kept :]
        self.v_BHWV[:, :, new] = v_BHTV[:, :, T - kept :]
        return out_BHTV


# --8<-- [end:rolling-cache]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    print(window_mask(6, 6, 3).int())
    x_BHTK = torch.randn(1, 2, 10, 8)
    print(tuple(window_attention(x_BHTK, x_BHTK, x_BHTK, window=3).shape))
    # --8<-- [end:first-look]

    # --8<-- [start:slots]
    cache = RollingCache(window=4)
    for t in range(6):
        cache.step(*[torch.full((1, 1, 1, 1), float(t))] * 3)
        print(f"after position {t}:", cache.k_BHWK.flatten().int().tolist())
    # --8<-- [end:slots]

    # --8<-- [start:cost]
    def dense(x_BHTK: Tensor, window: int) -> Tensor:
        """Return the same output from all T × T scores and a mask."""
        T = x_BHTK.shape[2]
        mask_BHTT = window_mask(T, T, window).expand(*x_BHTK.shape[:2], T, T)
        return attend(x_BHTK, x_BHTK, x_BHTK, mask_BHTT)

    lengths, banded, masked = [512, 1024, 2048, 4096], [], []
    for length in lengths:
        x_BHTK = torch.randn(1, 1, length, 32)
        flops = []
        for run, peaks in (
            (lambda x_BHTK: window_attention(x_BHTK, x_BHTK, x_BHTK, 64), banded),
            (lambda x_BHTK: dense(x_BHTK, 64), masked),
        ):
            call = partial(run, x_BHTK)
            flops.append(count_flops(call) / 1e6)
            peaks.append(peak_bytes(call))
        print(
            f"T = {length:4}: window {flops[0]:5.1f} MFLOPs,"
            f" {banded[-1] / 2**20:4.1f} MiB | all, masked {flops[1]:6.1f} MFLOPs,"
            f" {masked[-1] / 2**20:5.1f} MiB"
        )
    # --8<-- [end:cost]

    # --8<-- [start:growth]
    plot_growth(lengths, {"window 64": (banded, 1), "all scores, masked": (masked, 2)})
    plt.ylabel("peak bytes")
    plt.show()
    # --8<-- [end:growth]

    # --8<-- [start:cache-bytes]
    for name, positions in (("rolling, W = 4096", 4096), ("full, 32768 tokens", 32768)):
        size = 2 * 8 * 128 * 2 * positions  # keys and values, 8 heads, K = 128, 2 bytes
        print(f"{name}: {size / 2**20:.0f} MiB a layer")
    # --8<-- [end:cache-bytes]

    # --8<-- [start:picture]
    _, axes = plt.subplots(1, 3)
    for axis, layers in zip(axes, (1, 2, 3), strict=True):
        paths_TT = window_mask(16, 16, 4).double().matrix_power(layers).cpu().numpy()
        axis.imshow(paths_TT > 0, cmap="viridis")
        axis.set(title=f"L = {layers}", xlabel="input s", ylabel="output t")
    plt.show()
    # --8<-- [end:picture]

    # --8<-- [start:off-by-one]
    pos_S = torch.arange(4096)
    for left in (1024, 1023):  # FlashAttention's window_size=(left, 0): i - left to i
        seen = ((pos_S <= 4095) & (pos_S >= 4095 - left)).sum().item()
        print(f"window_size=({left}, 0): the last query sees {seen} keys")
    # --8<-- [end:off-by-one]

    # --8<-- [start:written-first]
    def write_first(k_BHTK: Tensor, W: int) -> Tensor:
        """Fill the ring with a whole prompt and only then give it to the queries."""
        B, H, T, K = k_BHTK.shape
        ring_BHWK = k_BHTK.new_zeros(B, H, W, K)
        for t in range(T):
            ring_BHWK[:, :, t % W] = k_BHTK[:, :, t]
        mask_TW = torch.ones(T, W, dtype=torch.bool).tril()  # cut from a causal mask
        return attend(k_BHTK, ring_BHWK, ring_BHWK, mask_TW.expand(B, H, T, W))

    x_BHTK = torch.randn(1, 1, 10, 8)
    future_BHTK = x_BHTK.clone()
    future_BHTK[:, :, 8:] += 1
    for name, run in (
        ("write, then read", lambda x_BHTK: write_first(x_BHTK, 4)),
        ("read, then write", lambda x_BHTK: RollingCache(4).step(*[x_BHTK] * 3)),
    ):
        moved = (run(x_BHTK) - run(future_BHTK))[:, :, 0].abs().max().item()
        print(f"{name}: query 0 moves by {moved:.2f} when positions 8 and 9 change")
    # --8<-- [end:written-first]

    # --8<-- [start:slot-order]
    def off_by(order: list[int]) -> list[str]:
        """Put positions 2 to 5 before positions 6 to 9 in some order; compare."""
        cache, rest_BHTK = RollingCache(4), x_BHTK[:, :, 6:]
        cache.step(*[x_BHTK[:, :, :6]] * 3)
        k_BHSK = torch.cat([cache.k_BHWK[:, :, order], rest_BHTK], dim=2)
        out_BHTK = window_attention(rest_BHTK, k_BHSK, k_BHSK, 4)
        right_BHTK = window_attention(x_BHTK, x_BHTK, x_BHTK, 4)[:, :, 6:]
        off_T = (out_BHTK - right_BHTK)[0, 0].abs().amax(dim=-1)
        return [f"{off:.2f}" for off in off_T.tolist()]

    print("in order of slots 0 1 2 3:    ", off_by([0, 1, 2, 3]))
    print("in order of positions 2 3 4 5:", off_by([2, 3, 0, 1]))
    # --8<-- [end:slot-order]
