"""Split-KV decoding: attend to parts of the keys, merge by their log-sum-exps."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.foundations.scaled_dot_product import (
    attend,
    check_sizes,
    masked_softmax,
    weigh,
)

# isort: split
# --8<-- [start:tools]
from functools import partial

import matplotlib.pyplot as plt

# --8<-- [end:tools]
# isort: split
from snippets.properties.cost import count_flops, plot_growth, seconds


# --8<-- [start:check-parts]
def check_parts(out_NBHTV: Tensor, lse_NBHT: Tensor) -> None:
    """Raise a ValueError unless each output has its log-sum-exp."""
    out, lse = tuple(out_NBHTV.shape), tuple(lse_NBHT.shape)
    if len(out) != 5 or out[0] == 0:
        raise ValueError(f"out has shape {out}, expected 5 axes and at least one part")
    if lse != out[:4]:
        raise ValueError(f"lse has shape {lse}, expected {out[:4]}")


def check_splits(splits: int) -> None:
    """Raise a ValueError unless there is a part."""
    if splits < 1:
        raise ValueError(f"splits is {splits}, expected at least 1")


# --8<-- [end:check-parts]


# --8<-- [start:attend-part]
def attend_part(
    q_BHTK: Tensor, k_BHSK: Tensor, v_BHSV: Tensor, mask_BHTS: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attend to some of the keys, and say how much they weigh.

    Returns the output (B, H, T, V) and the natural logarithm of the sum of the
    exponentiated scores (B, H, T), in float32 at least. A query that sees no key of
    this part gets zeros and -inf. Raises ValueError when sizes do not fit.
    """
    check_sizes(q_BHTK, k_BHSK, v_BHSV, mask_BHTS)
    if mask_BHTS is None:
        all_1 = q_BHTK.new_ones(1, dtype=torch.bool)
        mask_BHTS = all_1.expand(*q_BHTK.shape[:3], k_BHSK.shape[2])
    blind_BHT, unseen_BHS = ~mask_BHTS.any(dim=3), ~mask_BHTS.any(dim=2)
    work = torch.promote_types(q_BHTK.dtype, torch.float32)
    q_BHTK = q_BHTK.to(work).masked_fill(blind_BHT.unsqueeze(-1), 0.0)
    k_BHSK = k_BHSK.to(work).masked_fill(unseen_BHS.unsqueeze(-1), 0.0)
    q_BHTK = q_BHTK / math.sqrt(q_BHTK.shape[-1])
    score_BHTS = torch.einsum("BHTK,BHSK->BHTS", q_BHTK, k_BHSK)
    out_BHTV = weigh(masked_softmax(score_BHTS, mask_BHTS), v_BHSV.to(work))
    score_BHTS = score_BHTS.masked_fill(~mask_BHTS, -math.inf)
    score_BHTS = score_BHTS.masked_fill(blind_BHT.unsqueeze(-1), 0.0)
    lse_BHT = torch.logsumexp(score_BHTS, dim=-1)
    return out_BHTV, lse_BHT.masked_fill(blind_BHT, -math.inf)


# --8<-- [end:attend-part]


# --8<-- [start:merge]
def merge(out_NBHTV: Tensor, lse_NBHT: Tensor) -> tuple[Tensor, Tensor]:
    """Merge N parts into what attention to all their keys gives.

    Returns the output (B, H, T, V) and the log-sum-exp (B, H, T), to be merged again
    if need be. A part with lse -inf counts for nothing, whatever its output holds.
    Raises ValueError when sizes do not fit.
    """
    check_parts(out_NBHTV, lse_NBHT)
    empty_NBHT = lse_NBHT == -math.inf
    blind_BHT = empty_NBHT.all(dim=0)
    # The largest weight becomes exp(0) = 1: nothing overflows, and not all vanish.
    # Where nothing was seen it is -inf, and -inf - -inf would be NaN.
    top_BHT = lse_NBHT.detach().amax(dim=0).masked_fill(blind_BHT, 0.0)
    weight_NBHT = torch.exp(lse_NBHT - top_BHT)
    total_BHT = weight_NBHT.sum(dim=0).masked_fill(blind_BHT, 1.0)
    out_NBHTV = out_NBHTV.masked_fill(empty_NBHT.unsqueeze(-1), 0.0)
    out_BHTV = torch.einsum("NBHT,NBHTV->BHTV", weight_NBHT / total_BHT, out_NBHTV)
    lse_BHT = (top_BHT + total_BHT.log()).masked_fill(blind_BHT, -math.inf)
    return out_BHTV, lse_BHT


# --8<-- [end:merge]


# --8<-- [start:split-attend]
def split_attend(
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSV: Tensor,
    splits: int,
    mask_BHTS: Tensor | None = None,
) -> Tensor:
    """Attend to `splits` parts of the keys, each for itself, and merge.

    Parts have ceil(S / splits) keys; the last may have fewer, or none. Returns
    (B, H, T, V) in the dtype of q. Raises ValueError when sizes do not fit.
    """
    check_sizes(q_BHTK, k_BHSK, v_BHSV, mask_BHTS)
    check_splits(splits)
    size = -(-k_BHSK.shape[2] // splits)
    outs_BHTV, lses_BHT = [], []
    for n in range(splits):  # a GPU runs these at the same time
        keys = slice(n * size, (n + 1) * size)
        mask_BHTC = None if mask_BHTS is None else mask_BHTS[..., keys]
        out_BHTV, lse_BHT = attend_part(
            q_BHTK, k_BHSK[:, :, keys], v_BHSV[:, :, keys], mask_BHTC
        )
        outs_BHTV.append(out_BHTV)
        lses_BHT.append(lse_BHT)
    merged_BHTV, _ = merge(torch.stack(outs_BHTV), torch.stack(lses_BHT))
    return merged_BHTV.to(q_BHTK.dtype)


# --8<-- [end:split-attend]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    q_BHTK = torch.randn(1, 8, 1, 64)
    k_BHSK, v_BHSV = torch.randn(1, 8, 1000, 64), torch.randn(1, 8, 1000, 64)
    whole_BHTV = attend(q_BHTK, k_BHSK, v_BHSV)
    for splits in (1, 7, 16, 1500):
        out_BHTV = split_attend(q_BHTK, k_BHSK, v_BHSV, splits)
        off = (out_BHTV - whole_BHTV).abs().max().item()
        print(f"{splits:4} parts: off by {off:.0e}")
    # --8<-- [end:first-look]

    # --8<-- [start:two-parts]
    first_BHTV, first_BHT = attend_part(q_BHTK, k_BHSK[:, :, :900], v_BHSV[:, :, :900])
    last_BHTV, last_BHT = attend_part(q_BHTK, k_BHSK[:, :, 900:], v_BHSV[:, :, 900:])
    out_NBHTV = torch.stack([first_BHTV, last_BHTV])
    lse_NBHT = torch.stack([first_BHT, last_BHT])

    def report(name: str, out_BHTV: Tensor) -> None:
        """Print how far an output is from that of one pass."""
        print(f"{name}: off by {(out_BHTV - whole_BHTV).abs().max().item():.0e}")

    report("merged by log-sum-exp", merge(out_NBHTV, lse_NBHT)[0])
    # --8<-- [end:two-parts]

    # --8<-- [start:cost]
    whole = count_flops(lambda: attend(q_BHTK, k_BHSK, v_BHSV))
    for splits in (1, 4, 16):
        flops = count_flops(lambda n=splits: split_attend(q_BHTK, k_BHSK, v_BHSV, n))
        extra = 4 * splits * 8 * (64 + 1)
        print(
            f"{splits:2} parts: {flops / whole:.3f} times the FLOPs, {8 * splits:3}"
            f" pieces of work, {extra / 2**10:5.1f} KiB of partial results"
        )
    cache = 4 * (k_BHSK.numel() + v_BHSV.numel())
    print(f"keys and values to be read: {cache / 2**10:.0f} KiB")
    # --8<-- [end:cost]

    # --8<-- [start:growth]
    def measure(length: int, splits: int = 16) -> tuple[float, float]:
        """Time all keys in one go, and one part of them together with the merge."""
        q_BHTK, x_BHSK = torch.randn(1, 1, 1, 64), torch.randn(1, 1, length, 64)
        x_BHCK = x_BHSK[:, :, : length // splits]
        out_BHTV, lse_BHT = attend_part(q_BHTK, x_BHCK, x_BHCK)
        many_NBHTV, many_NBHT = (
            torch.stack([one_any] * splits) for one_any in (out_BHTV, lse_BHT)
        )
        part = partial(attend_part, q_BHTK, x_BHCK, x_BHCK)
        whole = partial(attend_part, q_BHTK, x_BHSK, x_BHSK)
        last = partial(merge, many_NBHTV, many_NBHT)
        best = [min(seconds(call) for _ in range(5)) for call in (whole, part, last)]
        return best[0], best[1] + best[2]

    lengths = [4096, 8192, 16384, 32768]
    whole, longest = zip(*map(measure, lengths), strict=True)
    plot_growth(
        lengths, {"all keys": (whole, 1), "one of 16 parts, and merge": (longest, 1)}
    )
    plt.ylabel("seconds")
    plt.show()
    # --8<-- [end:growth]

    # --8<-- [start:average]
    share_N1111 = torch.tensor([0.9, 0.1]).reshape(2, 1, 1, 1, 1)
    report("plain average        ", out_NBHTV.mean(dim=0))
    report("by number of keys    ", (share_N1111 * out_NBHTV).sum(dim=0))
    # --8<-- [end:average]

    # --8<-- [start:overflow]
    for size in (1.0, 100.0, 10000.0):
        lse_N1 = torch.tensor([[size], [size - 1]])
        weight_N1 = lse_N1.exp() / lse_N1.exp().sum(dim=0)
        shifted_N1 = torch.softmax(lse_N1, dim=0)
        print(f"lse {size:7}: {weight_N1.flatten()}, shifted {shifted_N1.flatten()}")
    # --8<-- [end:overflow]

    # --8<-- [start:empty]
    nothing_N1 = torch.full((2, 1), -math.inf)
    print("two empty parts, softmax of lse:", torch.softmax(nothing_N1, 0).flatten())

    def with_empty_part(lse: float) -> float:
        """Merge keys that point away from the query with an empty part."""
        away_BHSK = -q_BHTK.expand(1, 8, 100, 64)
        out_BHTV, lse_BHT = attend_part(q_BHTK, away_BHSK, away_BHSK)
        both_NBHTV = torch.stack([out_BHTV, torch.zeros_like(out_BHTV)])
        both_NBHT = torch.stack([lse_BHT, torch.full_like(lse_BHT, lse)])
        return (merge(both_NBHTV, both_NBHT)[0].norm() / out_BHTV.norm()).item()

    for lse in (-math.inf, 0.0, math.inf):
        print(f"empty part with lse {lse:4}: {with_empty_part(lse):.2f} of the output")
    # --8<-- [end:empty]

    # --8<-- [start:kernel]
    def kernel_lse() -> list[float]:
        """Ask PyTorch's CPU kernel for the lse of queries that see nothing."""
        x_BHTK = torch.randn(1, 1, 3, 8, device="cpu")
        bias_1111 = torch.full((1, 1, 1, 1), -math.inf, device="cpu")
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return kernel(x_BHTK, x_BHTK, x_BHTK, attn_mask=bias_1111)[1].flatten().tolist()

    print("PyTorch's CPU kernel, all keys masked, lse:", kernel_lse())
    # --8<-- [end:kernel]

    # --8<-- [start:base]
    report(
        "lse in base 2, merged with base e", merge(out_NBHTV, lse_NBHT / math.log(2))[0]
    )
    # --8<-- [end:base]
