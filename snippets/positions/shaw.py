"""Relative positions after Shaw et al.: a learned key and value for each distance."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
import matplotlib.pyplot as plt

from snippets.foundations.scaled_dot_product import check_sizes, masked_softmax, weigh
from snippets.properties.cost import count_flops, peak_bytes, plot_growth


# --8<-- [start:check-tables]
def check_tables(ak_WK: Tensor, av_WV: Tensor, K: int, V: int) -> None:
    """Raise a ValueError unless there is a row for each distance from -clip to clip."""
    for name, table_any, size in (("ak", ak_WK, K), ("av", av_WV, V)):
        shape = tuple(table_any.shape)
        if len(shape) != 2 or shape[0] % 2 == 0 or shape[1] != size:
            raise ValueError(f"{name} has shape {shape}, expected (odd, {size})")
    if len(ak_WK) != len(av_WV):
        raise ValueError(
            f"av has {len(av_WV)} rows, ak has {len(ak_WK)}: they must agree"
        )


# --8<-- [end:check-tables]


# --8<-- [start:distance-rows]
def distance_rows(T: int, S: int, clip: int, start: int | None = None) -> Tensor:
    """Find the row of the tables for each query t and key s.

    Row 0 is for keys at least clip before the query, row clip for the query's own
    position, row 2 · clip for keys at least clip after it. The first query stands at
    position `start`; without it the queries are the last T of the S positions, as with
    a KV cache. Returns (T, S). Raises ValueError when clip or start is negative.
    """
    if clip < 0:
        raise ValueError(f"clip is {clip}, expected at least 0")
    if start is not None and start < 0:
        raise ValueError(f"start is {start}, expected at least 0")
    first = S - T if start is None else start
    query_T1 = torch.arange(first, first + T).unsqueeze(1)
    return (torch.arange(S) - query_T1).clamp(-clip, clip) + clip


# --8<-- [end:distance-rows]


# --8<-- [start:relative-attend]
def relative_attend(
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSV: Tensor,
    ak_WK: Tensor,
    av_WV: Tensor,
    mask_BHTS: Tensor | None = None,
    start: int | None = None,
) -> Tensor:
    """Attend with relative keys and values (Shaw et al. 2018, eqs. 3 and 4).

    The tables have W = 2 · clip + 1 rows, for all heads the same. The mask is boolean,
    True = may attend. Returns (B, H, T, V); a query that may see no key gets zeros.
    Raises ValueError when sizes do not fit.
    """
    check_sizes(q_BHTK, k_BHSK, v_BHSV, mask_BHTS)
    B, H, T, K = q_BHTK.shape
    S, V, W = k_BHSK.shape[2], v_BHSV.shape[3], len(ak_WK)
    check_tables(ak_WK, av_WV, K, V)
    if mask_BHTS is not None:
        # Padding may hold anything. Clear it, or 0 · NaN reaches the gradients.
        q_BHTK = q_BHTK.masked_fill(~mask_BHTS.any(dim=3).unsqueeze(-1), 0.0)
        k_BHSK = k_BHSK.masked_fill(~mask_BHTS.any(dim=2).unsqueeze(-1), 0.0)
    q_BHTK = q_BHTK / math.sqrt(K)
    row_TS = distance_rows(T, S, W // 2, start).to(q_BHTK.device)
    row_BHTS = row_TS.expand(B, H, T, S)
    # Multiply with the W rows first and pick afterwards: no (T, S, K) is ever made.
    by_row_BHTW = torch.einsum("BHTK,WK->BHTW", q_BHTK, ak_WK)
    score_BHTS = torch.einsum("BHTK,BHSK->BHTS", q_BHTK, k_BHSK)
    score_BHTS = score_BHTS + by_row_BHTW.gather(3, row_BHTS)
    weight_BHTS = masked_softmax(score_BHTS, mask_BHTS)
    # All far keys share a row: add their many small weights in float32 at least.
    exact = torch.promote_types(weight_BHTS.dtype, torch.float32)
    total_BHTW = torch.zeros(B, H, T, W, dtype=exact, device=q_BHTK.device)
    total_BHTW = total_BHTW.scatter_add(3, row_BHTS, weight_BHTS.to(exact))
    far_BHTV = torch.einsum("BHTW,WV->BHTV", total_BHTW.to(av_WV.dtype), av_WV)
    return weigh(weight_BHTS, v_BHSV) + far_BHTV


# --8<-- [end:relative-attend]


# --8<-- [start:materialized]
def materialized(
    q_BHTK: Tensor, k_BHSK: Tensor, v_BHSV: Tensor, ak_WK: Tensor, av_WV: Tensor
) -> Tensor:
    """Do the same word for word: a key and a value for every pair of positions."""
    row_TS = distance_rows(q_BHTK.shape[2], k_BHSK.shape[2], len(ak_WK) // 2)
    ak_TSK, av_TSV = ak_WK[row_TS], av_WV[row_TS]
    score_BHTS = torch.einsum("BHTK,BHSK->BHTS", q_BHTK, k_BHSK)
    score_BHTS = score_BHTS + torch.einsum("BHTK,TSK->BHTS", q_BHTK, ak_TSK)
    weight_BHTS = torch.softmax(score_BHTS / math.sqrt(q_BHTK.shape[3]), dim=-1)
    out_BHTV = torch.einsum("BHTS,BHSV->BHTV", weight_BHTS, v_BHSV)
    return out_BHTV + torch.einsum("BHTS,TSV->BHTV", weight_BHTS, av_TSV)


# --8<-- [end:materialized]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    print(distance_rows(T=5, S=5, clip=2))
    print("decoding, one query, five keys:", distance_rows(T=1, S=5, clip=2).tolist())
    x_BHTK = torch.randn(1, 2, 5, 8)
    ak_WK, av_WV = torch.randn(2, 5, 8)
    print(tuple(relative_attend(x_BHTK, x_BHTK, x_BHTK, ak_WK, av_WV).shape))
    # --8<-- [end:first-look]

    # --8<-- [start:cost]
    lengths = [64, 128, 256, 512]
    table_any = torch.randn(33, 64)  # clip 16, K = V = 64

    def call(form, length):
        """Return a call of `form` with 4 heads."""
        x_any = torch.randn(1, 4, length, 64)
        return lambda: form(x_any, x_any, x_any, table_any, table_any)

    peaks = {}
    for form in (relative_attend, materialized):
        peaks[form.__name__] = [peak_bytes(call(form, n)) for n in lengths], 2
        flops = count_flops(call(form, 512))
        print(
            f"{form.__name__:15}: {flops / 1e6:5.1f} MFLOPs,"
            f" {peaks[form.__name__][0][-1] / 2**20:6.1f} MiB at length 512"
        )
    print(f"plain attention: {4 * 4 * 512**2 * 64 / 1e6:5.1f} MFLOPs")
    plot_growth(lengths, peaks)
    plt.ylabel("peak bytes")
    plt.show()
    # --8<-- [end:cost]

    # --8<-- [start:cached]
    q_BH1K = x_BHTK[:, :, -1:]
    full_BHTK = relative_attend(x_BHTK, x_BHTK, x_BHTK, ak_WK, av_WV)
    for name, start in (("as if position 0", 0), ("at the end", None)):
        step_BH1K = relative_attend(q_BH1K, x_BHTK, x_BHTK, ak_WK, av_WV, start=start)
        gap = (step_BH1K - full_BHTK[:, :, -1:]).abs().max()
        print(f"newest query {name}: off by {gap:.2f}")
    # --8<-- [end:cached]

    # --8<-- [start:unregistered]
    class Careless(nn.Module):
        """Keeps its table as a plain tensor."""

        def __init__(self) -> None:
            """Make a table that no optimizer will see."""
            super().__init__()
            self.ak_WK = torch.randn(5, 8)

    print("parameters:", len(list(Careless().parameters())))
    print("saved:", list(Careless().state_dict()))
    # --8<-- [end:unregistered]
