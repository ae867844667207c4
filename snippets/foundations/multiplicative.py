"""Multiplicative attention: Luong's three scores, over all keys or a window of them."""

# --8<-- [start:imports]
import math
from collections.abc import Callable
from functools import partial

import matplotlib.pyplot as plt
import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.foundations.scaled_dot_product import masked_softmax, weigh
from snippets.properties.cost import count_flops


# --8<-- [start:expect]
def expect(name: str, given_any: Tensor, *sizes: int) -> None:
    """Raise ValueError unless it has these sizes."""
    if tuple(given_any.shape) != sizes:
        raise ValueError(f"{name} has shape {tuple(given_any.shape)}, expected {sizes}")


def expect_three(q_BTD: Tensor, k_BSK: Tensor, v_BSV: Tensor, keep_BS: Tensor) -> None:
    """Raise ValueError unless query, key, value and keep fit each other."""
    for name, given_any in (("query", q_BTD), ("key", k_BSK), ("value", v_BSV)):
        if given_any.dim() != 3:
            shape = tuple(given_any.shape)
            raise ValueError(f"{name} has shape {shape}, expected 3 axes")
    B, S = k_BSK.shape[:2]
    expect("query", q_BTD, B, *q_BTD.shape[1:])
    expect("value", v_BSV, B, S, v_BSV.shape[2])
    expect("keep", keep_BS, B, S)
    if keep_BS.dtype != torch.bool:
        raise ValueError(f"keep has {keep_BS.dtype}, expected torch.bool")


# --8<-- [end:expect]


# --8<-- [start:scores]
def dot(q_BTK: Tensor, k_BSK: Tensor) -> Tensor:
    """Score by q·k, without a scale; returns (B, T, S)."""
    expect("query", q_BTK, len(k_BSK), q_BTK.shape[1], k_BSK.shape[2])
    return torch.einsum("BTK,BSK->BTS", q_BTK, k_BSK)


def general(q_BTD: Tensor, k_BSK: Tensor, weight_DK: Tensor) -> Tensor:
    """Score by q·W k, for sizes that differ; returns (B, T, S)."""
    expect("weight", weight_DK, q_BTD.shape[2], k_BSK.shape[2])
    return dot(q_BTD @ weight_DK, k_BSK)


def concat(q_BTD: Tensor, k_BSK: Tensor, weight_RF: Tensor, out_R: Tensor) -> Tensor:
    """Score by v·tanh(W [q; k]), F = D + K; returns (B, T, S)."""
    D, K = q_BTD.shape[2], k_BSK.shape[2]
    expect("weight", weight_RF, len(out_R), D + K)
    query_BT1R = (q_BTD @ weight_RF[:, :D].mT).unsqueeze(2)
    key_B1SR = (k_BSK @ weight_RF[:, D:].mT).unsqueeze(1)
    return torch.tanh(query_BT1R + key_B1SR) @ out_R


# --8<-- [end:scores]


# --8<-- [start:global]
def attend_globally(
    score: Callable, q_BTD: Tensor, k_BSK: Tensor, v_BSV: Tensor, keep_BS: Tensor
) -> tuple[Tensor, Tensor]:
    """Attend to every key that `keep` (True = no padding) lets through.

    Returns the output (B, T, V) and the weights (B, T, S). Raises ValueError when
    sizes do not fit.
    """
    expect_three(q_BTD, k_BSK, v_BSV, keep_BS)
    # Padding may hold anything. Clear it, or 0 · NaN reaches the gradients.
    k_BSK = k_BSK.masked_fill(~keep_BS.unsqueeze(-1), 0.0)
    score_B1TS = score(q_BTD, k_BSK).unsqueeze(1)
    mask_B1TS = keep_BS[:, None, None].expand_as(score_B1TS)
    weight_B1TS = masked_softmax(score_B1TS, mask_B1TS)
    out_B1TV = weigh(weight_B1TS, v_BSV.unsqueeze(1))
    return out_B1TV.squeeze(1), weight_B1TS.squeeze(1)


# --8<-- [end:global]


# --8<-- [start:window]
def near(place_BT: Tensor, keep_BS: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Find the keys at most `window` from each place.

    Returns indices of W = 2·window + 1 keys (B, T, W), and which of them count: not
    those outside the source, in padding, or too far.
    """
    S = keep_BS.shape[1]
    first_BT1 = (place_BT - window).ceil().long().unsqueeze(-1)
    index_BTW = first_BT1 + torch.arange(2 * window + 1)
    inside_BTW = (index_BTW >= 0) & (index_BTW < S)
    inside_BTW = inside_BTW & (index_BTW <= place_BT.unsqueeze(-1) + window)
    index_BTW = index_BTW.clamp(0, S - 1)
    sample_B11 = torch.arange(len(keep_BS))[:, None, None]
    return index_BTW, inside_BTW & keep_BS[sample_B11, index_BTW]


def attend_near(
    score: Callable,
    q_BTD: Tensor,
    k_BSK: Tensor,
    v_BSV: Tensor,
    keep_BS: Tensor,
    place_BT: Tensor,
    window: int,
    sigma: float = math.inf,
) -> tuple[Tensor, Tensor]:
    """Attend to the keys around a place for each query; others are never scored.

    The weights sum to 1 and are then multiplied by exp(−(s − place)² / 2σ²) (Luong et
    al. 2015, eq. 10). Returns the output (B, T, V) and the weights (B, T, W). Raises
    ValueError when sizes do not fit.
    """
    expect_three(q_BTD, k_BSK, v_BSV, keep_BS)
    expect("place", place_BT, *q_BTD.shape[:2])
    if window < 0:
        raise ValueError(f"window is {window}, expected at least 0")
    index_BTW, inside_BTW = near(place_BT, keep_BS, window)
    sample_B11 = torch.arange(len(k_BSK))[:, None, None]
    outside_BTW1 = ~inside_BTW.unsqueeze(-1)
    k_BTWK = k_BSK[sample_B11, index_BTW].masked_fill(outside_BTW1, 0.0)
    v_BTWV = v_BSV[sample_B11, index_BTW].masked_fill(outside_BTW1, 0.0)
    # Each query becomes a sample of its own, with its own W keys.
    score_P1W = score(q_BTD.flatten(0, 1).unsqueeze(1), k_BTWK.flatten(0, 1))
    inside_B1TW = inside_BTW.unsqueeze(1)
    weight_BTW = masked_softmax(score_P1W.view_as(inside_B1TW), inside_B1TW).squeeze(1)
    far_BTW = (index_BTW - place_BT.unsqueeze(-1)) / sigma
    weight_BTW = weight_BTW * torch.exp(-far_BTW.square() / 2).to(weight_BTW)
    return torch.einsum("BTW,BTWV->BTV", weight_BTW, v_BTWV), weight_BTW


# --8<-- [end:window]


# --8<-- [start:places]
def monotonic_places(B: int, T: int) -> Tensor:
    """Return the place of local-m, p_t = t; (B, T)."""
    return torch.arange(T, dtype=torch.float32).expand(B, T)


def predicted_places(
    q_BTD: Tensor, keep_BS: Tensor, weight_RD: Tensor, out_R: Tensor
) -> Tensor:
    """Return the place of local-p, p_t = S·sigmoid(v·tanh(W q)) (eq. 9); (B, T).

    S is the length of the source without its padding on the right. At least float32:
    bfloat16 has no odd numbers above 256.
    """
    hidden_BTR = torch.tanh(q_BTD @ weight_RD.mT)
    logit_BT = (hidden_BTR @ out_R).to(torch.promote_types(q_BTD.dtype, torch.float32))
    return keep_BS.sum(1, keepdim=True) * torch.sigmoid(logit_BT)


# --8<-- [end:places]


# --8<-- [start:state]
def attentional_state(out_BTV: Tensor, q_BTD: Tensor, weight_DF: Tensor) -> Tensor:
    """Return tanh(W [context; query]) (eq. 5), F = V + D; (B, T, D)."""
    expect("weight", weight_DF, q_BTD.shape[2], out_BTV.shape[2] + q_BTD.shape[2])
    return torch.tanh(torch.cat([out_BTV, q_BTD], dim=-1) @ weight_DF.mT)


# --8<-- [end:state]


# --8<-- [start:flops]
def flops_of(T: int, window: int | None) -> int:
    """Count the FLOPs of T queries on T keys of size 64: all of them, or a window."""
    x_1TK, keep_1T = torch.randn(1, T, 64), torch.ones(1, T, dtype=torch.bool)
    three_any = (dot, x_1TK, x_1TK, x_1TK, keep_1T)
    if window is None:
        return count_flops(partial(attend_globally, *three_any))
    return count_flops(partial(attend_near, *three_any, monotonic_places(1, T), window))


# --8<-- [end:flops]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    B, T, S, D, K, R = 2, 3, 12, 4, 6, 8
    q_BTD, k_BSK, v_BSV = (
        torch.randn(B, T, D),
        torch.randn(B, S, K),
        torch.randn(B, S, 5),
    )
    keep_BS = torch.arange(S) < torch.tensor([[12], [7]])
    score = partial(general, weight_DK=torch.randn(D, K))
    out_BTV, weight_BTS = attend_globally(score, q_BTD, k_BSK, v_BSV, keep_BS)
    sums = [f"{total:.2f}" for total in weight_BTS[0].sum(-1).tolist()]
    print("global ", tuple(weight_BTS.shape), "sums", sums)
    # --8<-- [end:first-look]

    # --8<-- [start:local-look]
    place_BT = predicted_places(q_BTD, keep_BS, torch.randn(R, D), torch.randn(R))
    print("places", [f"{p:.2f}" for p in place_BT[0].tolist()], "of", S)
    near_BTV, near_BTW = attend_near(
        score, q_BTD, k_BSK, v_BSV, keep_BS, place_BT, window=4, sigma=2.0
    )
    sums = [f"{total:.2f}" for total in near_BTW[0].sum(-1).tolist()]
    print("local-p", tuple(near_BTW.shape), "sums", sums)
    # --8<-- [end:local-look]

    # --8<-- [start:cost]
    for length in (256, 1024, 4096):
        every, few = flops_of(length, None), flops_of(length, 10)
        print(f"T = S = {length:4}: {every / 1e6:7.1f} MFLOPs, window {few / 1e6:5.1f}")
    # --8<-- [end:cost]

    # --8<-- [start:picture]
    x_11K, y_1PK = torch.ones(1, 1, 6), torch.randn(1, 20, 6) / 4
    ones_1P = torch.ones(1, 20, dtype=torch.bool)
    place_11 = torch.tensor([[8.3]])
    every_11P = attend_globally(dot, x_11K, y_1PK, y_1PK, ones_1P)[1]
    plt.plot(every_11P[0, 0].numpy(force=True), "o-", label="global")
    for label, sigma in (("window", math.inf), ("window · Gaussian", 2.0)):
        args_any = (x_11K, y_1PK, y_1PK, ones_1P, place_11, 4)
        some_11W = attend_near(dot, *args_any, sigma)[1]
        index_11W, inside_11W = near(place_11, ones_1P, 4)
        at, some = index_11W[inside_11W].tolist(), some_11W[inside_11W].tolist()
        plt.plot(at, some, "s--", label=label)
    plt.axvline(place_11.item(), color="gray", linewidth=1)
    plt.xlabel("key s")
    plt.ylabel("weight")
    plt.legend()
    plt.show()
    # --8<-- [end:picture]

    # --8<-- [start:unmasked]
    for name, kept_BS in (("keep", keep_BS), ("no mask", torch.ones_like(keep_BS))):
        _, each_BTS = attend_globally(score, q_BTD, k_BSK, v_BSV, kept_BS)
        lost = [f"{x:.2f}" for x in each_BTS[1, :, 7:].sum(-1).tolist()]
        print(f"{name}: weight on the padding of sample 1", lost)
    # --8<-- [end:unmasked]

    # --8<-- [start:no-tanh]
    weight_DF = torch.randn(D, 5 + D)
    with_BTD = attentional_state(out_BTV, q_BTD, weight_DF)
    bare_BTD = torch.cat([out_BTV, q_BTD], dim=-1) @ weight_DF.mT
    for name, state_BTD in (("tanh", with_BTD), ("no tanh", bare_BTD)):
        print(f"{name}: largest entry of the state {state_BTD.abs().max():.2f}")
    # --8<-- [end:no-tanh]
