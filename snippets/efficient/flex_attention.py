"""FlexAttention: one attention, changed by small functions of score and position."""

# --8<-- [start:imports]
import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

# --8<-- [end:imports]
# isort: split
# --8<-- [start:tools]
import matplotlib.pyplot as plt

# --8<-- [end:tools]
# isort: split
from snippets.foundations.scaled_dot_product import check_sizes, masked_softmax, weigh
from snippets.properties.cost import count_flops, largest_bytes, plot_growth


# --8<-- [start:mask-mods]
def causal(b: Tensor, h: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Let query t see keys up to its own position."""
    return t >= s


def sliding_window(width: int) -> Callable:
    """Return a mask_mod: query t sees the `width` latest keys, its own included."""
    return lambda b, h, t, s: (t >= s) & (t - s < width)


def prefix(length: int) -> Callable:
    """Return a mask_mod: all see the first `length` keys, the rest is causal."""
    return lambda b, h, t, s: (t >= s) | (s < length)


def document(number_BS: Tensor) -> Callable:
    """Return a mask_mod: query and key belong to the same document, and causal.

    `number_BS` says to which document each position of each sequence belongs.
    """
    return lambda b, h, t, s: (t >= s) & (number_BS[b, t] == number_BS[b, s])


# --8<-- [end:mask-mods]


# --8<-- [start:score-mods]
def alibi(slope_H: Tensor) -> Callable:
    """Return a score_mod: subtract slope times distance (Press et al. 2021, §3)."""
    return lambda score, b, h, t, s: score - slope_H[h] * (t - s)


def soft_cap(limit: float) -> Callable:
    """Return a score_mod: squash scores into (-limit, limit) with tanh."""
    return lambda score, b, h, t, s: limit * torch.tanh(score / limit)


def chain(*score_mods: Callable) -> Callable:
    """Return a score_mod that applies the given ones from left to right."""

    def chained(score: Tensor, *where: Tensor) -> Tensor:
        for score_mod in score_mods:
            score = score_mod(score, *where)
        return score

    return chained


# --8<-- [end:score-mods]


# --8<-- [start:places]
def places(B: int, H: int, t_T: Tensor, s_S: Tensor) -> tuple[Tensor, ...]:
    """Return b, h, t and s as tensors that broadcast to (B, H, T, S)."""
    b_B111 = torch.arange(B, device=t_T.device)[:, None, None, None]
    h_H11 = torch.arange(H, device=t_T.device)[:, None, None]
    return b_B111, h_H11, t_T[:, None], s_S


def mask_at(
    mask_mod: Callable | None, B: int, H: int, t_T: Tensor, s_S: Tensor
) -> Tensor | None:
    """Return what a mask_mod says at these positions, (B, H, T, S), or None."""
    if mask_mod is None:
        return None
    mask_any = mask_mod(*places(B, H, t_T, s_S))
    if mask_any.dtype != torch.bool:
        raise ValueError(f"mask_mod returned {mask_any.dtype}, expected torch.bool")
    return mask_any.expand(B, H, len(t_T), len(s_S))


# --8<-- [end:places]


# --8<-- [start:flex]
def attend_at(
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSV: Tensor,
    t_T: Tensor,
    s_S: Tensor,
    score_mod: Callable | None,
    mask_mod: Callable | None,
) -> Tensor:
    """Attend from queries at positions t to keys at positions s."""
    B, H, T, K = q_BHTK.shape
    mask_BHTS = mask_at(mask_mod, B, H, t_T, s_S)
    if mask_BHTS is not None:  # what nobody sees may hold NaN: keep it from gradients
        q_BHTK = q_BHTK.masked_fill(~mask_BHTS.any(dim=3).unsqueeze(-1), 0.0)
        k_BHSK = k_BHSK.masked_fill(~mask_BHTS.any(dim=2).unsqueeze(-1), 0.0)
    score_BHTS = torch.einsum("BHTK,BHSK->BHTS", q_BHTK / math.sqrt(K), k_BHSK)
    score_BHTS = score_BHTS.to(torch.promote_types(q_BHTK.dtype, torch.float32))
    if score_mod is not None:
        score_BHTS = score_mod(score_BHTS, *places(B, H, t_T, s_S))
        if score_BHTS.shape != (B, H, T, len(s_S)):
            raise ValueError(
                f"score_mod returned shape {tuple(score_BHTS.shape)}, "
                f"expected {(B, H, T, len(s_S))}"
            )
    weight_BHTS = masked_softmax(score_BHTS, mask_BHTS)
    return weigh(weight_BHTS.to(v_BHSV.dtype), v_BHSV)


def flex(
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSV: Tensor,
    score_mod: Callable | None = None,
    mask_mod: Callable | None = None,
) -> Tensor:
    """Attend with scores changed by `score_mod`, then hidden where `mask_mod` is False.

    `score_mod(score, b, h, t, s)` gets the scaled scores, `mask_mod(b, h, t, s)`
    positions alone. Returns (B, H, T, V); a query without keys gets zeros. Raises
    ValueError when sizes do not fit or a function returns the wrong kind.
    """
    check_sizes(q_BHTK, k_BHSK, v_BHSV, None)
    t_T = torch.arange(q_BHTK.shape[2], device=q_BHTK.device)
    s_S = torch.arange(k_BHSK.shape[2], device=q_BHTK.device)
    return attend_at(q_BHTK, k_BHSK, v_BHSV, t_T, s_S, score_mod, mask_mod)


# --8<-- [end:flex]


# --8<-- [start:blocks]
def block_kinds(
    mask_mod: Callable, B: int, H: int, T: int, S: int, C: int = 128
) -> Tensor:
    """Say of each block of C queries and C keys: 0 empty, 1 partly seen, 2 all seen.

    Returns (B, H, P, N): P blocks of queries, N of keys. A ragged block is never 2.
    """
    if C < 1:
        raise ValueError(f"C is {C}, expected a positive block size")
    mask_BHTS = mask_at(mask_mod, B, H, torch.arange(T), torch.arange(S))
    whole_any = torch.nn.functional.pad(mask_BHTS, (0, -S % C, 0, -T % C))
    count_BHPN = whole_any.unflatten(3, (-1, C)).unflatten(2, (-1, C)).sum(dim=(3, 5))
    return (count_BHPN > 0).int() + (count_BHPN == C * C).int()


def flex_blocks(
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSV: Tensor,
    mask_mod: Callable,
    score_mod: Callable | None = None,
    C: int = 128,
) -> Tensor:
    """Equal `flex`, but never touch a block that the mask leaves empty."""
    check_sizes(q_BHTK, k_BHSK, v_BHSV, None)
    (B, H, T, _), S = q_BHTK.shape, k_BHSK.shape[2]
    kind_BHPN = block_kinds(mask_mod, B, H, T, S, C)
    seen_PN = kind_BHPN.amax(dim=(0, 1)) > 0
    s_S, parts_any = torch.arange(S, device=q_BHTK.device), []
    for seen_N, t_any in zip(
        seen_PN, torch.arange(T, device=s_S.device).split(C), strict=True
    ):
        s_any = s_S[seen_N.repeat_interleave(C)[:S]]
        k_any, v_any = k_BHSK[:, :, s_any], v_BHSV[:, :, s_any]
        q_any = q_BHTK[:, :, t_any]
        parts_any.append(
            attend_at(q_any, k_any, v_any, t_any, s_any, score_mod, mask_mod)
        )
    return torch.cat(parts_any, dim=2)


# --8<-- [end:blocks]
