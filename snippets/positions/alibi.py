"""ALiBi: scores lowered in proportion to the distance, a slope for each head."""

# --8<-- [start:imports]
import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.foundations.scaled_dot_product import check_sizes, masked_softmax, weigh
from snippets.properties.cost import largest_bytes, plot_growth


# --8<-- [start:slopes]
def slopes(heads: int) -> Tensor:
    """Return the slope of each head, (H,), in float64 (Press et al. 2021).

    2^(-8/n), 2^(-16/n), …, 2^-8 for n heads, n a power of two. Heads above the largest
    power of two n take every other slope of 2n heads, from the first, as the authors'
    code does. Raises ValueError without a head.
    """
    if heads < 1:
        raise ValueError(f"heads is {heads}, expected at least 1")
    n = 2 ** (heads.bit_length() - 1)  # the largest power of two in heads
    power_H = torch.arange(1, heads + 1, dtype=torch.float64) * 8 / n
    power_H[n:] = (2 * torch.arange(heads - n) + 1) * 4 / n
    return 2**-power_H


# --8<-- [end:slopes]


# --8<-- [start:bias]
def alibi_bias(slope_H: Tensor, T: int, S: int) -> Tensor:
    """Return minus slope times distance, (H, T, S), in float64.

    The T queries stand at the last T of S positions, as with a cache. Raises
    ValueError when there are more queries than keys.
    """
    if T > S:
        raise ValueError(f"T is {T}, S is {S}: queries are the last of the keys")
    query_T1 = torch.arange(S - T, S, device=slope_H.device).unsqueeze(1)
    away_TS = query_T1 - torch.arange(S, device=slope_H.device)
    return -slope_H.double()[:, None, None] * away_TS


# --8<-- [end:bias]


# --8<-- [start:attention]
def alibi_attention(
    q_BHTK: Tensor, k_BHSK: Tensor, v_BHSV: Tensor, keep_BS: Tensor | None = None
) -> Tensor:
    """Attend causally with ALiBi; the queries are the last T of S positions.

    `keep_BS` is boolean, False = padding. Returns (B, H, T, V), zeros for a query that
    sees no key. Raises ValueError when sizes do not fit.
    """
    check_sizes(q_BHTK, k_BHSK, v_BHSV, None)
    (B, H, T, K), S = q_BHTK.shape, k_BHSK.shape[2]
    bias_HTS = alibi_bias(slopes(H), T, S).to(q_BHTK.device)
    see_TS = torch.ones(T, S, dtype=torch.bool, device=q_BHTK.device).tril(S - T)
    mask_BHTS = see_TS.expand(B, H, T, S)
    if keep_BS is not None:
        if keep_BS.dtype != torch.bool:
            raise ValueError(f"keep has {keep_BS.dtype}, expected torch.bool")
        if keep_BS.shape != (B, S):
            raise ValueError(
                f"keep has shape {tuple(keep_BS.shape)}, expected {(B, S)}"
            )
        mask_BHTS = mask_BHTS & keep_BS[:, None, None]
    # Padding may hold anything. Clear it, or 0 · NaN reaches the gradients.
    q_BHTK = q_BHTK.masked_fill(~mask_BHTS.any(dim=3).unsqueeze(-1), 0.0)
    k_BHSK = k_BHSK.masked_fill(~mask_BHTS.any(dim=2).unsqueeze(-1), 0.0)
    score_BHTS = torch.einsum("BHTK,BHSK->BHTS", q_BHTK / math.sqrt(K), k_BHSK)
    wide = torch.promote_types(score_BHTS.dtype, torch.float32)
    # After the scale, and in float32 at least: the bias is no part of the product.
    score_BHTS = score_BHTS.to(wide) + bias_HTS.to(wide)
    weight_BHTS = masked_softmax(score_BHTS, mask_BHTS)
    return weigh(weight_BHTS.to(v_BHSV.dtype), v_BHSV)


# --8<-- [end:attention]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    for heads in (8, 12):
        print(f"{heads:2} heads:", *(f"{slope:.4f}" for slope in slopes(heads)))
    print(alibi_bias(slopes(8)[:1], T=3, S=5)[0])
    # --8<-- [end:first-look]

    # --8<-- [start:extrapolate]
    q_BH1K, k_BHSK = torch.randn(1, 8, 1, 32), torch.randn(1, 8, 4096, 32)
    near_H, none_H = slopes(8), torch.zeros(8)
    for keys in (256, 1024, 4096):
        score_BH1S = torch.einsum("BHTK,BHSK->BHTS", q_BH1K, k_BHSK[:, :, -keys:])
        shares = []
        for slope_H in (near_H, none_H):
            bias_H1S = alibi_bias(slope_H, 1, keys)
            weight_BH1S = (score_BH1S / math.sqrt(32) + bias_H1S).softmax(-1)
            shares.append(weight_BH1S[0, :, 0, -64:].sum(-1).tolist())
        (first, *_, last), plain = shares[0], sum(shares[1]) / 8
        print(
            f"S = {keys:4}: weight of the nearest 64 keys, slope 1/2 {first:.3f},"
            f" slope 1/256 {last:.3f}, without bias {plain:.3f}"
        )
    # --8<-- [end:extrapolate]

    # --8<-- [start:picture]
    away_N = torch.arange(1, 1025)
    for slope, style in zip(
        slopes(8)[::2].tolist(), ("-", "--", "-.", ":"), strict=True
    ):
        share_N = torch.exp(-slope * (away_N - 1)).cpu()
        plt.semilogx(away_N.cpu(), share_N, style, label=f"slope 1/{1 / slope:.0f}")
    plt.xlabel("distance + 1")
    plt.ylabel("weight relative to distance 0")
    plt.legend()
    plt.show()
    # --8<-- [end:picture]

    # --8<-- [start:cost]
    lengths = [128, 256, 512, 1024]
    square = [largest_bytes(lambda n=n: alibi_bias(slopes(8), n, n)) for n in lengths]
    row = [largest_bytes(lambda n=n: alibi_bias(slopes(8), 1, n)) for n in lengths]
    plot_growth(lengths, {"all queries": (square, 2), "one query": (row, 1)})
    plt.ylabel("bytes of the bias")
    plt.show()
    print(f"length 1024: all queries {square[-1]} B, one query {row[-1]} B")
    # --8<-- [end:cost]

    # --8<-- [start:twelve]
    geometric = [2 ** (-8 * (h + 1) / 12) for h in range(12)]
    print("one geometric row:", *(f"{slope:.3f}" for slope in geometric))
    print("the authors' code:", *(f"{slope:.3f}" for slope in slopes(12)))
    # --8<-- [end:twelve]

    # --8<-- [start:cached]
    q_BHTK, k_BHTK, v_BHTK = torch.randn(3, 1, 8, 200, 32).unbind(0)
    right_BH1K = alibi_attention(q_BHTK, k_BHTK, v_BHTK)[:, :, -1:]
    score_BH1T = torch.einsum("BHTK,BHSK->BHTS", q_BHTK[:, :, -1:], k_BHTK)
    for name, keys in (("over the cache", 200), ("over the query", 1)):
        bias_any = alibi_bias(slopes(8), 1, keys)
        weight_BH1T = (score_BH1T / math.sqrt(32) + bias_any).softmax(-1).float()
        off = (weight_BH1T @ v_BHTK - right_BH1K).abs().max().item()
        print(f"bias {name} {tuple(bias_any.shape)}: off by {off:.2f}")
    # --8<-- [end:cached]

    # --8<-- [start:sign]
    weight_H1T = (-alibi_bias(slopes(8), 1, 200)).softmax(-1)
    print(f"sign lost: slope 1/2 gives the oldest key {weight_H1T[0, 0, 0]:.2f}")
    # --8<-- [end:sign]

    # --8<-- [start:absolute]
    place_S, away_S = torch.arange(4096), torch.arange(4095, -1, -1)
    exact_S = (-away_S.double() / 2).softmax(-1)
    for dtype in (torch.float32, torch.bfloat16):
        for name, bias_S in (
            ("m · j     ", place_S.to(dtype) / 2),
            ("-m (i - j)", -away_S.to(dtype) / 2),
        ):
            weight_S = bias_S.double().softmax(-1)
            off = (weight_S - exact_S).abs().max().item()
            print(f"{name} in {str(dtype)[6:]:8}: a weight is off by {off:.3f}")
    # --8<-- [end:absolute]
