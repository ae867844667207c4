"""FlexAttention: one attention, changed by small functions of score and position."""

# --8<-- [start:imports]
import math
import warnings
from collections.abc import Callable
from functools import partial

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
from snippets.properties.cost import count_flops, plot_growth


# --8<-- [start:mask-mods]
def causal(b_any: Tensor, h_any: Tensor, t_any: Tensor, s_any: Tensor) -> Tensor:
    """Say whether query t may see key s: up to its own position."""
    return t_any >= s_any


def sliding_window(width: int) -> Callable:
    """Return a mask_mod: query t sees the `width` latest keys, its own included."""

    def mask_mod(b_any, h_any, t_any, s_any):
        return (t_any >= s_any) & (t_any - s_any < width)

    return mask_mod


def prefix(length: int) -> Callable:
    """Return a mask_mod: all see the first `length` keys, the rest is causal."""

    def mask_mod(b_any, h_any, t_any, s_any):
        return (t_any >= s_any) | (s_any < length)

    return mask_mod


def document(number_BS: Tensor) -> Callable:
    """Return a mask_mod: causal, and query and key lie in the same document.

    `number_BS` holds the document of each position of each sequence.
    """

    def mask_mod(b_any, h_any, t_any, s_any):
        same_any = number_BS[b_any, t_any] == number_BS[b_any, s_any]
        return (t_any >= s_any) & same_any

    return mask_mod


# --8<-- [end:mask-mods]


# --8<-- [start:score-mods]
def alibi(slope_H: Tensor) -> Callable:
    """Return a score_mod: subtract slope times distance (Press et al. 2021, §3)."""

    def score_mod(score_any, b_any, h_any, t_any, s_any):
        return score_any - slope_H[h_any] * (t_any - s_any)

    return score_mod


def soft_cap(limit: float) -> Callable:
    """Return a score_mod: squash scores into (-limit, limit) with tanh."""

    def score_mod(score_any, b_any, h_any, t_any, s_any):
        return limit * torch.tanh(score_any / limit)

    return score_mod


def chain(*score_mods: Callable) -> Callable:
    """Return a score_mod that applies the given ones from left to right."""

    def score_mod(score_any, *where_any):
        for one in score_mods:
            score_any = one(score_any, *where_any)
        return score_any

    return score_mod


# --8<-- [end:score-mods]


# --8<-- [start:places]
def places(B: int, H: int, t_T: Tensor, s_S: Tensor) -> tuple[Tensor, ...]:
    """Return b, h, t and s as tensors that broadcast to (B, H, T, S)."""
    b_B111, h_H11 = torch.arange(B)[:, None, None, None], torch.arange(H)[:, None, None]
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
    t_T, s_S = torch.arange(q_BHTK.shape[2]), torch.arange(k_BHSK.shape[2])
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
    seen_PN = block_kinds(mask_mod, B, H, T, S, C).amax(dim=(0, 1)) > 0
    t_T, s_S = torch.arange(T), torch.arange(S)
    parts_any = []
    for seen_N, t_any in zip(seen_PN, t_T.split(C), strict=True):
        s_any = s_S[seen_N.repeat_interleave(C)[:S]]
        qkv_any = q_BHTK[:, :, t_any], k_BHSK[:, :, s_any], v_BHSV[:, :, s_any]
        parts_any.append(attend_at(*qkv_any, t_any, s_any, score_mod, mask_mod))
    return torch.cat(parts_any, dim=2)


# --8<-- [end:blocks]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    q_BHTK, k_BHTK, v_BHTK = (torch.randn(2, 2, 256, 16) for _ in range(3))
    number_BT = torch.stack([torch.arange(256) // 64, torch.arange(256) // 100])
    slope_H = torch.tensor([0.5, 0.25])
    mask_mod, score_mod = document(number_BT), chain(alibi(slope_H), soft_cap(5.0))
    ours_BHTK = flex(q_BHTK, k_BHTK, v_BHTK, score_mod, mask_mod)

    block_mask = create_block_mask(mask_mod, 2, None, 256, 256)
    with warnings.catch_warnings(record=True) as told:
        theirs_BHTK = flex_attention(q_BHTK, k_BHTK, v_BHTK, score_mod, block_mask)
    print("largest difference", f"{(ours_BHTK - theirs_BHTK).abs().max():.1e}")
    print(*[str(one.message).split(".")[1] for one in told])
    # --8<-- [end:first-look]

    # --8<-- [start:skipped]
    masks = {
        "causal": causal,
        "sliding_window(256)": sliding_window(256),
        "prefix(256)": prefix(256),
        "document": document(torch.arange(2048)[None] // 500),
    }
    x_any = torch.randn(1, 1, 2048, 16)
    dense = count_flops(lambda: flex(x_any, x_any, x_any))
    for name, mask_mod in masks.items():
        counts = block_kinds(mask_mod, 1, 1, 2048, 2048).flatten().bincount().tolist()
        their_share = create_block_mask(mask_mod, None, None, 2048, 2048).sparsity()
        assert round(their_share - counts[0] / 256 * 100, 6) == 0
        call = partial(flex_blocks, x_any, x_any, x_any, mask_mod)
        share = count_flops(call) / dense
        print(
            f"{name:20} empty {counts[0]:3}, partly {counts[1]:2}, full {counts[2]:3}"
            f" of 256 blocks: {share:.1%} of the FLOPs"
        )
    # --8<-- [end:skipped]

    # --8<-- [start:growth]
    lengths, flops = [512, 1024, 2048, 4096], {"causal": [], "window": []}
    for length in lengths:
        x_any = torch.randn(1, 1, length, 16)
        for name, mask_mod in (("causal", causal), ("window", sliding_window(64))):
            call = partial(flex_blocks, x_any, x_any, x_any, mask_mod, C=64)
            flops[name].append(count_flops(call))
    plot_growth(
        lengths, {"causal": (flops["causal"], 2), "window": (flops["window"], 1)}
    )
    plt.ylabel("FLOPs, empty blocks skipped")
    plt.show()
    # --8<-- [end:growth]

    # --8<-- [start:first-sequence-only]
    mask_mod = document(number_BT)
    right = create_block_mask(mask_mod, 2, None, 256, 256, BLOCK_SIZE=32)
    wrong = create_block_mask(mask_mod, None, None, 256, 256, BLOCK_SIZE=32)
    lost_any = right.to_dense()[1] > wrong.to_dense()[0]
    print("blocks of sequence 1 that would be skipped:", lost_any.sum().item())
    qkv_any = q_BHTK, k_BHTK, v_BHTK
    same = flex_attention(*qkv_any, block_mask=wrong).equal(
        flex_attention(*qkv_any, block_mask=right)
    )
    print("uncompiled, both give the same output:", same)
    # --8<-- [end:first-sequence-only]

    # --8<-- [start:precedence]
    def even_only(b_any, h_any, t_any, s_any):
        """Be causal in even sequences; what Python reads is another thing."""
        return (t_any >= s_any) & b_any % 2 == 0

    mask_any = mask_at(even_only, 2, 1, torch.arange(4), torch.arange(4))[:, 0]
    for number in (0, 1):
        future = mask_any[number].triu(1).sum().item()
        past = mask_any[number].tril().sum().item()
        print(
            f"sequence {number}: sees {past} of 10 past keys, {future} of 6 future ones"
        )
    # --8<-- [end:precedence]
