"""Attention masks: causal, padding, prefix and documents, and all of them together."""

# --8<-- [start:imports]
from functools import partial

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn
from torch.nn.attention import flex_attention

# --8<-- [end:imports]
# isort: split
from snippets.foundations.scaled_dot_product import attend
from snippets.properties.cost import count_flops


# --8<-- [start:check]
def check_sizes_of_mask(T: int, S: int) -> None:
    """Raise ValueError unless there is at least one query and one key."""
    if T < 1 or S < 1:
        raise ValueError(f"T is {T} and S is {S}, expected at least 1 of each")


def check_per_key(name: str, given_any: Tensor, dtype: torch.dtype, T: int = 1) -> None:
    """Raise ValueError unless it is (B, S) of that dtype, with room for T queries."""
    if given_any.dtype != dtype:
        raise ValueError(f"{name} has {given_any.dtype}, expected {dtype}")
    if given_any.dim() != 2:
        shape = tuple(given_any.shape)
        raise ValueError(f"{name} has shape {shape}, expected (batch, keys)")
    check_sizes_of_mask(T, given_any.shape[1])


# --8<-- [end:check]


# --8<-- [start:causal]
def causal(T: int, S: int) -> Tensor:
    """Let each query see its own position and those before; returns (T, S).

    The T queries are the last T of the S positions, as with a cache. With T > S the
    first T − S queries have no position among the keys and see nothing. Raises
    ValueError for less than one query or key.
    """
    check_sizes_of_mask(T, S)
    key_S = torch.arange(S)
    query_T1 = torch.arange(S - T, S).unsqueeze(1)
    return key_S <= query_T1


# --8<-- [end:causal]


# --8<-- [start:prefix]
def prefix(length_B: Tensor, T: int, S: int) -> Tensor:
    """Let each query see the first `length` keys too, ahead or not; returns (B, T, S).

    `length_B` is int64, one a sample. With length 0 or 1 this is the causal mask. Raises
    ValueError for another dtype or shape.
    """
    if length_B.dtype != torch.int64 or length_B.dim() != 1:
        came = f"{length_B.dtype} of shape {tuple(length_B.shape)}"
        raise ValueError(f"length is {came}, expected torch.int64 of shape (batch,)")
    given_B1S = torch.arange(S) < length_B[:, None, None]
    return causal(T, S) | given_B1S


# --8<-- [end:prefix]


# --8<-- [start:padding]
def padding(keep_BS: Tensor, T: int) -> Tensor:
    """Hide padded keys from each of T queries; returns (B, T, S), a view.

    `keep_BS` is boolean, True for what is no padding. Raises ValueError for another
    dtype or shape.
    """
    check_per_key("keep", keep_BS, torch.bool, T)
    B, S = keep_BS.shape
    return keep_BS.unsqueeze(1).expand(B, T, S)


# --8<-- [end:padding]


# --8<-- [start:documents]
def documents(document_BS: Tensor, T: int) -> Tensor:
    """Let each query see only keys of its own document; returns (B, T, S).

    `document_BS` is int64, a number for the document of each key; the T queries are
    the last T positions. Raises ValueError for another dtype or shape, and for T > S.
    """
    check_per_key("document", document_BS, torch.int64, T)
    S = document_BS.shape[1]
    if T > S:
        raise ValueError(f"T is {T}, document has {S} positions: expected T ≤ {S}")
    of_query_BT = document_BS[:, S - T :]
    return of_query_BT.unsqueeze(2) == document_BS.unsqueeze(1)


# --8<-- [end:documents]


# --8<-- [start:combine]
def combine(B: int, H: int, *masks_any: Tensor) -> Tensor:
    """Let a query see a key where every mask, (T, S) or (B, T, S), allows it.

    Returns (B, H, T, S), a view in which all heads share one mask. Raises ValueError
    when a mask does not fit.
    """
    if not masks_any:
        raise ValueError("no mask came, expected at least one")
    T, S = masks_any[0].shape[-2:]
    mask_BTS = torch.ones(B, T, S, dtype=torch.bool, device=masks_any[0].device)
    for number, one_any in enumerate(masks_any):
        if one_any.dtype != torch.bool:
            raise ValueError(f"mask {number} has {one_any.dtype}, expected torch.bool")
        shape = tuple(one_any.shape)
        if shape not in ((T, S), (B, T, S)):
            raise ValueError(
                f"mask {number} has shape {shape}, expected {(T, S)} or {(B, T, S)}"
            )
        mask_BTS = mask_BTS & one_any
    return mask_BTS.unsqueeze(1).expand(B, H, T, S)


# --8<-- [end:combine]


# --8<-- [start:positions]
def position_ids(keep_BS: Tensor) -> Tensor:
    """Count what is no padding, from 0; returns (B, S), int64, 0 at padding before.

    `keep_BS` is boolean, True for what is no padding. Raises ValueError for another
    dtype or shape.
    """
    check_per_key("keep", keep_BS, torch.bool)
    return (keep_BS.cumsum(dim=1) - 1).clamp(min=0)


# --8<-- [end:positions]


# --8<-- [start:price]
def price(H: int, T: int) -> list[str]:
    """Say what a causal mask on T positions costs, and what FlexAttention would skip."""
    x_BHTK = torch.randn(1, H, T, 64)
    mask_BHTT = combine(1, H, causal(T, T))
    flops = count_flops(partial(attend, x_BHTK, x_BHTK, x_BHTK))
    masked = count_flops(partial(attend, x_BHTK, x_BHTK, x_BHTK, mask_BHTT))
    lines = [
        f"mask {mask_BHTT.untyped_storage().nbytes() / 2**20:.0f} MiB, "
        f"scores {4 * mask_BHTT.numel() / 2**20:.0f} MiB",
        f"MFLOPs without a mask {flops / 1e6:.0f}, with {masked / 1e6:.0f}",
    ]
    document_T = torch.arange(T) // 256
    for name, rule in (
        ("causal", lambda b, h, t, s: s <= t),
        ("packed", lambda b, h, t, s: (s <= t) & (document_T[t] == document_T[s])),
    ):
        blocks = flex_attention.create_block_mask(
            rule, None, None, T, T, device=document_T.device
        )
        lines.append(f"{name}: FlexAttention skips {blocks.sparsity():.1f}% of blocks")
    return lines


# --8<-- [end:price]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    print("causal, T = 2 of S = 5:", causal(2, 5).int().tolist())
    keep_25 = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], dtype=torch.bool)
    print("position ids:", position_ids(keep_25).tolist())
    mask_2455 = combine(2, 4, causal(5, 5), padding(keep_25, 5))
    print(
        "mask", tuple(mask_2455.shape), "keys seen:", mask_2455[:, 0].sum(-1).tolist()
    )
    # --8<-- [end:first-look]

    # --8<-- [start:blind-rows]
    x_2458 = torch.randn(2, 4, 5, 8)
    out_2458 = attend(x_2458, x_2458, x_2458, mask_2455)
    norms = out_2458[0, 0].norm(dim=-1).tolist()
    print("first sample, norms of the outputs:", [f"{norm:.2f}" for norm in norms])
    # --8<-- [end:blind-rows]

    # --8<-- [start:cost]
    for line in price(H=8, T=1024):
        print(line)
    # --8<-- [end:cost]

    # --8<-- [start:picture]
    document_18 = torch.tensor([[0, 0, 0, 1, 1, 1, 2, 2]])
    left_18 = torch.arange(8).unsqueeze(0) >= 2
    shown = {
        "causal": [causal(8, 8)],
        "causal, T = 3": [causal(3, 8)],
        "prefix of 4": [prefix(torch.tensor([4]), 8, 8)],
        "causal, left padding": [causal(8, 8), padding(left_18, 8)],
        "documents": [documents(document_18, 8)],
        "causal, documents": [causal(8, 8), documents(document_18, 8)],
    }
    _, axes = plt.subplots(2, 3, figsize=(7, 5), layout="constrained")
    for axis, (title, masks_any) in zip(axes.flat, shown.items(), strict=True):
        shown_88 = combine(1, 1, *masks_any)[0, 0].numpy(force=True)
        axis.imshow(shown_88, cmap="viridis", vmin=0, vmax=1)
        axis.set(title=title, xlabel="key s", ylabel="query t", xticks=[], yticks=[])
    plt.show()
    # --8<-- [end:picture]

    # --8<-- [start:top-left]
    wrong_25 = torch.ones(2, 5, dtype=torch.bool).tril()
    for name, mask_25 in (("tril", wrong_25), ("causal", causal(2, 5))):
        print(f"{name}: the two newest queries see {mask_25.sum(-1).tolist()} keys")
    # --8<-- [end:top-left]

    # --8<-- [start:query-padding]
    keep_15 = torch.tensor([[True, True, True, False, False]])
    right_1155 = combine(1, 1, padding(keep_15, 5))
    quiet_1155 = torch.randn(1, 1, 5, 5)
    loud_1155 = quiet_1155.masked_fill(~keep_15[:, None, :, None], 100.0)
    for name, mask_1155 in (("keys", right_1155), ("queries", right_1155.mT)):
        before_1155 = attend(quiet_1155, quiet_1155, quiet_1155, mask_1155)
        after_1155 = attend(loud_1155, loud_1155, loud_1155, mask_1155)
        moved = (before_1155 - after_1155)[0, 0, 0].abs().max().item()
        print(f"{name} hidden: padding of 100 moves output 0 by {moved:.2f}")
    # --8<-- [end:query-padding]

    # --8<-- [start:left-padding]
    def look(x_BTD: Tensor, place_T: Tensor, *masks_any: Tensor) -> Tensor:
        """Add embeddings of positions, then attend with one head; returns (B, T, D)."""
        x_B1TD = (x_BTD + embed(place_T)).unsqueeze(1)
        mask_B1TS = combine(len(x_BTD), 1, *masks_any)
        return attend(x_B1TD, x_B1TD, x_B1TD, mask_B1TS).squeeze(1)

    embed = nn.Embedding(8, 8)
    left_15D = torch.randn(1, 5, 8)
    alone_13D = look(left_15D[:, 2:], torch.arange(3), causal(3, 3))
    keep_15 = torch.tensor([[False, False, True, True, True]])
    for name, place_5 in (
        ("0 1 2 3 4", torch.arange(5)),
        ("position_ids", position_ids(keep_15)[0]),
    ):
        padded_15D = look(left_15D, place_5, causal(5, 5), padding(keep_15, 5))
        gap = (padded_15D[:, 2:] - alone_13D).abs().max().item()
        print(f"{name}: differs from the unpadded by {gap:.2f}")
    # --8<-- [end:left-padding]
