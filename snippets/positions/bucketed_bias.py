"""Bucketed relative bias of T5: one number per head for each bucket of distances."""

# --8<-- [start:imports]
import math

import torch
import torch.nn.functional as F
from torch import Tensor

# --8<-- [end:imports]
# isort: split
import matplotlib.pyplot as plt

from snippets.foundations.scaled_dot_product import check_sizes, masked_softmax, weigh
from snippets.properties.cost import count_flops, peak_bytes, plot_growth


# --8<-- [start:check-buckets]
def check_buckets(count: int, far: int, causal: bool) -> int:
    """Return the buckets of each direction; raise a ValueError if there are too few."""
    directions = 1 if causal else 2
    if count < 1 or count % (2 * directions):
        raise ValueError(
            f"count is {count}, expected a positive multiple of {2 * directions}"
        )
    own = count // directions
    if far <= own // 2:
        raise ValueError(f"far is {far}, expected more than {own // 2}")
    return own


# --8<-- [end:check-buckets]


# --8<-- [start:bucket]
def bucket(
    distance_TS: Tensor, count: int = 32, far: int = 128, causal: bool = False
) -> Tensor:
    """Sort distances (key minus query) into `count` buckets (Raffel et al. 2019, §2.1).

    In both directions half of the buckets are for keys up to the query, half for keys
    after it; if causal, all are for the past, and the future shares bucket 0. Of each
    direction's own, half hold one distance each and half grow geometrically up to
    `far`; what is farther falls into the last. Returns (T, S). Raises ValueError when
    the buckets cannot be laid out.
    """
    own = check_buckets(count, far, causal)
    exact = own // 2
    size_TS = (-distance_TS).clamp(min=0) if causal else distance_TS.abs()
    ratio_TS = size_TS.clamp(min=exact).double() / exact
    # A whisker more, so that 2 / 1 · … is not rounded below the whole number it is.
    step_TS = ratio_TS.log() / math.log(far / exact) * (own - exact) + 1e-9
    large_TS = (exact + step_TS.long()).clamp(max=own - 1)
    near_TS = torch.where(size_TS < exact, size_TS, large_TS)
    return near_TS if causal else near_TS + own * (distance_TS > 0)


# --8<-- [end:bucket]


# --8<-- [start:relative-bias]
def relative_bias(
    table_WH: Tensor,
    T: int,
    S: int,
    far: int = 128,
    causal: bool = False,
    start: int | None = None,
) -> Tensor:
    """Look up what each head adds to its scores; returns (H, T, S).

    The table has one row for each of W buckets. The first query stands at position
    `start`; without it the queries are the last T of the S positions, as with a KV
    cache. Raises ValueError when the table has no two axes or start is negative.
    """
    if table_WH.dim() != 2:
        raise ValueError(f"table has {table_WH.dim()} axes, expected 2")
    if start is not None and start < 0:
        raise ValueError(f"start is {start}, expected at least 0")
    first = S - T if start is None else start
    query_T1 = torch.arange(first, first + T, device=table_WH.device).unsqueeze(1)
    distance_TS = torch.arange(S, device=table_WH.device) - query_T1
    return table_WH[bucket(distance_TS, len(table_WH), far, causal)].permute(2, 0, 1)


# --8<-- [end:relative-bias]


# --8<-- [start:biased-attend]
def biased_attend(
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSV: Tensor,
    bias_HTS: Tensor,
    mask_BHTS: Tensor | None = None,
) -> Tensor:
    """Attend with a bias on the scores and, as in T5, without dividing by √K.

    The mask is boolean, True = may attend. Returns (B, H, T, V); a query that may see
    no key gets zeros. Raises ValueError when sizes do not fit.
    """
    check_sizes(q_BHTK, k_BHSK, v_BHSV, mask_BHTS)
    expected = (*q_BHTK.shape[1:3], k_BHSK.shape[2])
    if tuple(bias_HTS.shape) != expected:
        raise ValueError(f"bias has shape {tuple(bias_HTS.shape)}, expected {expected}")
    if mask_BHTS is not None:
        # Padding may hold anything. Clear it, or 0 · NaN reaches the gradients.
        q_BHTK = q_BHTK.masked_fill(~mask_BHTS.any(dim=3).unsqueeze(-1), 0.0)
        k_BHSK = k_BHSK.masked_fill(~mask_BHTS.any(dim=2).unsqueeze(-1), 0.0)
    score_BHTS = torch.einsum("BHTK,BHSK->BHTS", q_BHTK, k_BHSK) + bias_HTS
    return weigh(masked_softmax(score_BHTS, mask_BHTS), v_BHSV)


# --8<-- [end:biased-attend]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    edge_any = torch.tensor([[0, -1, -7, -8, -11, -12, -91, -128, -9999, 1, 8, 128]])
    for name, causal in (
        ("distance  ", None),
        ("both ways ", False),
        ("causal    ", True),
    ):
        row_any = edge_any if causal is None else bucket(edge_any, causal=causal)
        print(name, " ".join(f"{n:5}" for n in row_any[0].tolist()))
    # --8<-- [end:first-look]

    # --8<-- [start:ranges]
    past_any = -torch.arange(200).unsqueeze(0)
    for name, causal in (("both ways", False), ("causal", True)):
        row_any = bucket(past_any, causal=causal)[0]
        first = [int((row_any == n).nonzero()[0]) for n in row_any.unique()]
        print(f"{name}: buckets of the past begin at", *first)
    # --8<-- [end:ranges]

    # --8<-- [start:cost]
    lengths = [64, 128, 256, 512]
    table_WH = torch.randn(32, 8)
    flops = count_flops(lambda: relative_bias(table_WH, 512, 512))
    print(f"FLOPs in matrix products: {flops}, parameters: {table_WH.numel()}")
    kept = 8 * 512 * 512 * 4 / 2**20
    print(f"bias of 8 heads at length 512 in float32: {kept:.0f} MiB")
    peaks = [peak_bytes(lambda n=n: relative_bias(table_WH, n, n)) for n in lengths]
    plot_growth(lengths, {"peak of relative_bias": (peaks, 2)})
    plt.ylabel("bytes")
    plt.show()
    # --8<-- [end:cost]

    # --8<-- [start:picture]
    line_any = torch.arange(-160, 161).unsqueeze(0)
    for name, causal in (("both ways", False), ("causal", True)):
        plt.step(
            line_any[0].cpu(), bucket(line_any, causal=causal)[0].cpu(), label=name
        )
    plt.xlabel("distance, key minus query")
    plt.ylabel("bucket")
    plt.legend()
    plt.show()
    # --8<-- [end:picture]

    # --8<-- [start:cached]
    x_BHTK = torch.randn(1, 8, 6, 4)
    full_BHTK = biased_attend(x_BHTK, x_BHTK, x_BHTK, relative_bias(table_WH, 6, 6))
    for name, start in (("from 0", 0), ("from the cache", None)):
        bias_H1S = relative_bias(table_WH, 1, 6, start=start)
        step_BH1K = biased_attend(x_BHTK[:, :, -1:], x_BHTK, x_BHTK, bias_H1S)
        gap = (step_BH1K - full_BHTK[:, :, -1:]).abs().max()
        print(f"newest query counted {name}: off by {gap:.2f}")
    # --8<-- [end:cached]

    # --8<-- [start:no-limit]
    for distance in (-127, -128, -2000):
        step = math.log(-distance / 8) / math.log(128 / 8) * 8
        print(
            f"distance {distance}: bucket {8 + int(step)} without a limit,"
            f" {bucket(torch.tensor([[distance]])).item()} with"
        )
    # --8<-- [end:no-limit]

    # --8<-- [start:scale]
    bias_HTS = relative_bias(table_WH, 6, 6)
    for name, scale in (("default", None), ("1.0", 1.0)):
        theirs_BHTK = F.scaled_dot_product_attention(
            x_BHTK, x_BHTK, x_BHTK, bias_HTS, scale=scale
        )
        print(f"SDPA, scale {name}: off by {(theirs_BHTK - full_BHTK).abs().max():.2f}")
    # --8<-- [end:scale]
