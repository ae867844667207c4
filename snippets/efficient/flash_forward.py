"""FlashAttention, forward: tiles of scores, a running max and sum, output and LSE."""

# --8<-- [start:imports]
import functools
import math

import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.efficient.online_softmax import shifted_exp
from snippets.foundations.scaled_dot_product import attend, check_sizes, weigh
from snippets.properties.cost import count_flops, peak_bytes, plot_growth, plt


# --8<-- [start:last-key]
def last_keys(T: int, S: int, causal: bool) -> Tensor:
    """Return the index of the last key that each query may see (T, 1).

    Under a causal mask the last query sees the last key: the mask is aligned to the
    bottom right. With T > S the first queries see nothing and have negative indices.
    """
    if not causal:
        return torch.full((T, 1), S - 1)
    return torch.arange(S - T, S).unsqueeze(1)


def check_tiles(rows: int, columns: int) -> None:
    """Raise a ValueError for a tile without any score."""
    for name, size in (("rows", rows), ("columns", columns)):
        if size < 1:
            raise ValueError(f"{name} is {size}, expected at least 1")


# --8<-- [end:last-key]


# --8<-- [start:row-of-tiles]
def row_of_tiles(
    q_BHRK: Tensor, k_BHSK: Tensor, v_BHSV: Tensor, last_R1: Tensor, columns: int
) -> tuple[Tensor, Tensor]:
    """Attend from R queries, of which each sees the keys up to its `last`.

    Returns the output (B, H, R, V) and the LSE (B, H, R), in at least float32. Tiles
    in which no query sees a key are neither read nor computed.
    """
    wide = torch.promote_types(q_BHRK.dtype, torch.float32)
    q_BHRK = q_BHRK.to(wide) / math.sqrt(q_BHRK.shape[3])
    max_BHR1 = q_BHRK.new_full((*q_BHRK.shape[:3], 1), -math.inf)
    sum_BHR1 = torch.zeros_like(max_BHR1)
    out_BHRV = q_BHRK.new_zeros(*q_BHRK.shape[:3], v_BHSV.shape[3])
    for left in range(0, int(last_R1.max()) + 1, columns):
        k_BHCK = k_BHSK[:, :, left : left + columns].to(wide)
        v_BHCV = v_BHSV[:, :, left : left + columns].to(wide)
        key_C = torch.arange(left, left + k_BHCK.shape[2], device=last_R1.device)
        score_BHRC = torch.einsum("BHRK,BHCK->BHRC", q_BHRK, k_BHCK)
        score_BHRC = score_BHRC.masked_fill(key_C > last_R1, -math.inf)
        new_BHR1 = torch.maximum(max_BHR1, score_BHRC.amax(dim=3, keepdim=True))
        weight_BHRC = shifted_exp(score_BHRC, new_BHR1)
        old_BHR1 = shifted_exp(max_BHR1, new_BHR1)
        sum_BHR1 = sum_BHR1 * old_BHR1 + weight_BHRC.sum(dim=3, keepdim=True)
        out_BHRV = out_BHRV * old_BHR1 + weigh(weight_BHRC, v_BHCV)
        max_BHR1 = new_BHR1
    lse_BHR1 = max_BHR1 + torch.log(sum_BHR1)
    # Only a query that saw no key has a sum below 1.
    return out_BHRV / sum_BHR1.clamp(min=1.0), lse_BHR1.squeeze(3)


# --8<-- [end:row-of-tiles]


# --8<-- [start:flash-forward]
def flash_forward(
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSV: Tensor,
    causal: bool = False,
    rows: int = 64,
    columns: int = 64,
) -> tuple[Tensor, Tensor]:
    """Attend tile by tile (Dao et al. 2022, in the loop order of Dao 2023).

    Returns the output (B, H, T, V) in the dtype of the queries, and the log of the
    sum of exp(score), the LSE (B, H, T), in at least float32. A query that sees no
    key gets zeros and -inf. Raises ValueError when sizes do not fit.
    """
    check_sizes(q_BHTK, k_BHSK, v_BHSV, None)
    check_tiles(rows, columns)
    (B, H, T, _), (S, V) = q_BHTK.shape, v_BHSV.shape[2:]
    last_T1 = last_keys(T, S, causal).to(q_BHTK.device)
    out_BHTV = q_BHTK.new_empty(B, H, T, V)
    wide = torch.promote_types(q_BHTK.dtype, torch.float32)
    lse_BHT = q_BHTK.new_empty(B, H, T, dtype=wide)
    for top in range(0, T, rows):
        row = slice(top, top + rows)
        out_BHTV[:, :, row], lse_BHT[:, :, row] = row_of_tiles(
            q_BHTK[:, :, row], k_BHSK, v_BHSV, last_T1[row], columns
        )
    return out_BHTV, lse_BHT


# --8<-- [end:flash-forward]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    q_BHTK = torch.randn(1, 2, 100, 16)
    k_BHSK, v_BHSV = torch.randn(1, 2, 130, 16), torch.randn(1, 2, 130, 8)
    causal_TS = torch.ones(100, 130, dtype=torch.bool).tril(130 - 100)
    out_BHTV, lse_BHT = flash_forward(q_BHTK, k_BHSK, v_BHSV, causal=True)
    plain_BHTV = attend(q_BHTK, k_BHSK, v_BHSV, causal_TS.expand(1, 2, 100, 130))
    print("output", tuple(out_BHTV.shape), "LSE", tuple(lse_BHT.shape))
    gap = (out_BHTV - plain_BHTV).abs().max().item()
    print(f"differs from plain attention by {gap:.0e}")
    # --8<-- [end:first-look]

    # --8<-- [start:work]
    x_any = torch.randn(1, 1, 512, 32)
    plain = count_flops(lambda: attend(x_any, x_any, x_any))
    print(f"plain attention: {plain} FLOPs")
    for causal, tile in ((False, 64), (True, 128), (True, 64), (True, 16)):
        flash = functools.partial(
            flash_forward, x_any, x_any, x_any, causal, tile, tile
        )
        name = "causal" if causal else "no mask"
        print(f"flash, {name}, tiles of {tile}: {count_flops(flash) / plain:.3f} of it")
    # --8<-- [end:work]

    # --8<-- [start:cost]
    lengths = [256, 512, 1024]
    tiled, whole = [], []
    for length in lengths:
        x_any = torch.randn(1, 1, length, 32)
        args_any = x_any, x_any, x_any
        tiled.append(peak_bytes(functools.partial(flash_forward, *args_any)))
        whole.append(peak_bytes(functools.partial(attend, *args_any)))
    print(
        f"at 1024: flash {tiled[-1] / 2**10:.0f} KiB, plain {whole[-1] / 2**10:.0f} KiB"
    )
    plot_growth(lengths, {"flash": (tiled, 1), "plain": (whole, 2)})
    plt.ylabel("peak bytes")
    plt.show()
    # --8<-- [end:cost]

    # --8<-- [start:tiles-figure]
    last_any = last_keys(6 * 8, 8 * 8, causal=True)
    kind_RC = torch.zeros(6, 8)
    for row in range(6):
        low, high = last_any[8 * row].item(), last_any[8 * row + 7].item()
        for column in range(8):
            first, last = 8 * column, 8 * column + 7
            kind_RC[row, column] = 0.0 if first > high else 1.0 if last <= low else 0.5
    plt.figure()
    plt.imshow(kind_RC.cpu().numpy(), cmap="viridis", vmin=0, vmax=1)
    plt.xlabel("tile of keys")
    plt.ylabel("tile of queries")
    plt.colorbar(ticks=[0, 0.5, 1]).ax.set_yticklabels(["skipped", "masked", "full"])
    plt.show()
    # --8<-- [end:tiles-figure]

    # --8<-- [start:top-left]
    step_BH1K = q_BHTK[:, :, -1:]
    for name, last in (("bottom right", 129), ("top left", 0)):
        last_11 = torch.tensor([[last]])
        one_BH1V, _ = row_of_tiles(step_BH1K, k_BHSK, v_BHSV, last_11, 64)
        gap = (one_BH1V - out_BHTV[:, :, -1:]).abs().max().item()
        print(f"one query on 130 keys, {name}: differs by {gap:.2f}")
    # --8<-- [end:top-left]

    # --8<-- [start:finite-mask]
    score_12 = torch.tensor([[-20000.0, 0.0]])  # the second key is masked
    value_21 = torch.tensor([[1.0], [100.0]])
    for fill in (-10000.0, -math.inf):
        masked_12 = score_12.masked_fill(torch.tensor([[False, True]]), fill)
        answer_11 = torch.softmax(masked_12, 1) @ value_21
        print(f"masked by {fill}: output {answer_11.item():.1f}, expected 1.0")
    # --8<-- [end:finite-mask]

    # --8<-- [start:log-base]
    left_any = flash_forward(q_BHTK, k_BHSK[:, :, :65], v_BHSV[:, :, :65])
    right_any = flash_forward(q_BHTK, k_BHSK[:, :, 65:], v_BHSV[:, :, 65:])
    whole_BHTV, _ = flash_forward(q_BHTK, k_BHSK, v_BHSV)
    for name, unit in (("both natural", 1.0), ("one in base 2", math.log2(math.e))):
        share_BHT = torch.sigmoid(left_any[1] * unit - right_any[1])
        both_BHTV = torch.lerp(right_any[0], left_any[0], share_BHT.unsqueeze(3))
        gap = (both_BHTV - whole_BHTV).abs().max().item()
        print(f"two halves of the keys, {name}: differs by {gap:.1e}")
    # --8<-- [end:log-base]
