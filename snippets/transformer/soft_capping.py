"""Logit soft-capping: a tanh keeps every score within ±cap, and only then the mask."""

# --8<-- [start:imports]
import math
from functools import partial

import matplotlib.pyplot as plt
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
from snippets.properties.cost import count_flops, peak_bytes, plot_growth, seconds


# --8<-- [start:support]
def check_cap(cap: float) -> None:
    """Raise a ValueError unless cap is a positive finite number."""
    if not 0 < cap < math.inf:
        raise ValueError(f"cap is {cap}, expected a positive finite number")


def clear_hidden(
    q_BHTK: Tensor, k_BHSK: Tensor, mask_BHTS: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Zero the queries that see nothing and the keys that nobody sees.

    Returns q (B, H, T, K) and k (B, H, S, K). Padding may hold NaN, and 0 · NaN
    would reach the gradients.
    """
    if mask_BHTS is None:
        return q_BHTK, k_BHSK
    blind_BHT1 = ~mask_BHTS.any(dim=3).unsqueeze(-1)
    unseen_BHS1 = ~mask_BHTS.any(dim=2).unsqueeze(-1)
    return q_BHTK.masked_fill(blind_BHT1, 0.0), k_BHSK.masked_fill(unseen_BHS1, 0.0)


# --8<-- [end:support]


# --8<-- [start:soft-cap]
def soft_cap(score_any: Tensor, cap: float) -> Tensor:
    """Squash scores smoothly into [-cap, cap] (Gemma Team 2024, §2).

    Returns the shape of the scores. Small scores stay as they are: the slope at 0 is 1.
    Raises ValueError unless cap is positive and finite.
    """
    check_cap(cap)
    return cap * torch.tanh(score_any / cap)


# --8<-- [end:soft-cap]


# --8<-- [start:attend-capped]
def attend_capped(
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSV: Tensor,
    cap: float,
    mask_BHTS: Tensor | None = None,
) -> Tensor:
    """Attend with capped scores: scale, cap, mask, softmax, in this order.

    The mask is boolean, True = may attend. Returns (B, H, T, V); a query that may
    see no key gets zeros. Raises ValueError when sizes do not fit or cap is not
    positive and finite.
    """
    check_sizes(q_BHTK, k_BHSK, v_BHSV, mask_BHTS)
    q_BHTK, k_BHSK = clear_hidden(q_BHTK, k_BHSK, mask_BHTS)
    q_BHTK = q_BHTK / math.sqrt(q_BHTK.shape[-1])
    score_BHTS = torch.einsum("BHTK,BHSK->BHTS", q_BHTK, k_BHSK)
    weight_BHTS = masked_softmax(soft_cap(score_BHTS, cap), mask_BHTS)
    return weigh(weight_BHTS, v_BHSV)


# --8<-- [end:attend-capped]


# --8<-- [start:measure]
def measure(T: int) -> tuple[float, float]:
    """Compare both kinds on 4 heads of T positions; returns the times in seconds."""
    q_BHTK, k_BHTK, v_BHTK = torch.randn(3, 1, 4, T, 64).unbind(0)
    plain = partial(attend, q_BHTK, k_BHTK, v_BHTK)
    capped = partial(attend_capped, q_BHTK, k_BHTK, v_BHTK, 50.0)
    print(
        f"T = {T:4}: {count_flops(plain) / 1e6:6.1f} and"
        f" {count_flops(capped) / 1e6:6.1f} MFLOPs, peak"
        f" {peak_bytes(plain) / 2**20:5.2f} and {peak_bytes(capped) / 2**20:5.2f} MiB"
    )
    return seconds(plain), seconds(capped)


# --8<-- [end:measure]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    print("score    capped at 50   slope")
    for score in (1.0, 5.0, 10.0, 50.0, 100.0, 500.0):
        x_1 = torch.tensor([score], requires_grad=True)
        y_1 = soft_cap(x_1, 50.0)
        (slope_1,) = torch.autograd.grad(y_1, x_1)
        print(f"{score:5.0f} {y_1.item():12.2f} {slope_1.item():12.1e}")
    # --8<-- [end:first-look]

    # --8<-- [start:weights]
    lead_N = torch.zeros(8192, dtype=torch.float64)
    lead_N[0] = 1000.0  # one key far ahead of 8191 others
    for cap in (1.0, 5.0, 10.0, 20.0, 50.0):
        share_N = torch.softmax(soft_cap(lead_N, cap), dim=0)
        print(f"cap {cap:2.0f}: weight {share_N[0]:.4f}, others {share_N[1]:.1e}")
    # --8<-- [end:weights]

    # --8<-- [start:figure]
    line_N = torch.linspace(-200, 200, 8192)
    for label, curve_N in {
        "soft cap 50": soft_cap(line_N, 50.0),
        "soft cap 20": soft_cap(line_N, 20.0),
        "clamp to ±50": line_N.clamp(-50, 50),
    }.items():
        style = "--" if "clamp" in label else "-"
        plt.plot(line_N.cpu(), curve_N.cpu(), style, label=label)
    plt.xlabel("score")
    plt.ylabel("capped score")
    plt.legend()
    plt.show()
    # --8<-- [end:figure]

    # --8<-- [start:cost]
    sizes = [128, 256, 512, 1024]
    plain, capped = zip(*map(measure, sizes), strict=True)
    plot_growth(sizes, {"plain": (plain, 2), "capped": (capped, 2)})
    plt.ylabel("seconds")
    plt.show()
    # --8<-- [end:cost]

    # --8<-- [start:mask-first]
    causal_TS = torch.ones(32, 32, dtype=torch.bool).tril()
    score_TS = torch.randn(32, 32).masked_fill(~causal_TS, -math.inf)
    for cap in (50.0, 5.0, 1.0):
        leak_TS = torch.softmax(soft_cap(score_TS, cap), dim=-1).triu(1)
        print(f"cap {cap:2.0f}: the first query leaks {leak_TS[0].sum():.1e}")
    # --8<-- [end:mask-first]

    # --8<-- [start:forgotten]
    q_BHTK, k_BHSK, v_BHSV = torch.randn(3, 1, 1, 32, 64).unbind(0)
    for size in (1.0, 2.0, 4.0, 8.0):
        wanted_BHTV = attend_capped(size * q_BHTK, size * k_BHSK, v_BHSV, 50.0)
        without_BHTV = attend(size * q_BHTK, size * k_BHSK, v_BHSV)
        off = (wanted_BHTV - without_BHTV).abs().max().item()
        print(f"scores of standard deviation {size**2:2.0f}: off by {off:.4f}")
    # --8<-- [end:forgotten]

    # --8<-- [start:shift]
    row_2 = torch.tensor([0.0, 2.0])
    for shift in (0.0, 10.0):
        plain_2 = torch.softmax(row_2 + shift, dim=0)
        capped_2 = torch.softmax(soft_cap(row_2 + shift, 5.0), dim=0)
        print(
            f"shifted by {shift:2.0f}: {plain_2[1]:.2f} plain, {capped_2[1]:.2f} capped"
        )
    # --8<-- [end:shift]
