"""Online softmax: the largest score and the sum of a row in one pass, block by block."""

# --8<-- [start:imports]
import functools
import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.properties.cost import largest_bytes, plot_growth, plt


# --8<-- [start:state]
class State(NamedTuple):
    """What is known of T rows after some of their scores."""

    max_T: Tensor  # the largest score so far
    sum_T: Tensor  # the sum of exp(score - max) so far


# --8<-- [end:state]


# --8<-- [start:check-scores]
def check_scores(score_TS: Tensor, block: int) -> None:
    """Raise a ValueError that names the first argument that does not fit."""
    shape = tuple(score_TS.shape)
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"score has shape {shape}, expected (rows, at least 1 score)")
    if not score_TS.dtype.is_floating_point:
        raise ValueError(f"score has {score_TS.dtype}, expected floating point")
    if block < 1:
        raise ValueError(f"block is {block}, expected at least 1")


# --8<-- [end:check-scores]


# --8<-- [start:shifted-exp]
def shifted_exp(x_any: Tensor, max_any: Tensor) -> Tensor:
    """Return exp(x - max), and 0 where x and max are both -inf."""
    anchor_any = max_any.masked_fill(max_any == -math.inf, 0.0)
    return torch.exp(x_any - anchor_any)


# --8<-- [end:shifted-exp]


# --8<-- [start:summarize]
def summarize(score_TC: Tensor) -> State:
    """Return the state of T rows of which a single block of scores was seen.

    The state has at least float32, whatever the scores have. No gradient flows
    through its max: the softmax does not depend on what is subtracted.
    """
    score_TC = score_TC.to(torch.promote_types(score_TC.dtype, torch.float32))
    max_T = score_TC.detach().amax(dim=1)
    return State(max_T, shifted_exp(score_TC, max_T.unsqueeze(1)).sum(dim=1))


# --8<-- [end:summarize]


# --8<-- [start:merge]
def merge(one_T: State, two_T: State) -> State:
    """Return the state after the scores of both (Milakov and Gimelshein 2018, §3.1).

    Associative and commutative. Raises ValueError when the numbers of rows differ.
    """
    if len(one_T.max_T) != len(two_T.max_T):
        raise ValueError(
            f"one has {len(one_T.max_T)} rows, two has {len(two_T.max_T)}: "
            "they must agree"
        )
    max_T = torch.maximum(one_T.max_T, two_T.max_T)
    first_T = one_T.sum_T * shifted_exp(one_T.max_T, max_T)
    second_T = two_T.sum_T * shifted_exp(two_T.max_T, max_T)
    return State(max_T, first_T + second_T)


# --8<-- [end:merge]


# --8<-- [start:scan]
def scan(blocks_any: Iterable[Tensor]) -> State:
    """Return the state after blocks (T, anything), each of which is read once."""
    return functools.reduce(merge, map(summarize, blocks_any))


def logsumexp(state_T: State) -> Tensor:
    """Return log Σ exp(score) of each row (T); -inf where all scores were -inf."""
    return state_T.max_T + torch.log(state_T.sum_T)


# --8<-- [end:scan]


# --8<-- [start:online-softmax]
def online_softmax(score_TS: Tensor, block: int) -> Tensor:
    """Return the softmax of each row (T, S): one pass for its sum, one to divide.

    A row of nothing but -inf gives zeros. Raises ValueError when score is not (T, S)
    of floating point or block is less than 1.
    """
    check_scores(score_TS, block)
    state_T = scan(score_TS.split(block, dim=1))
    max_T1, sum_T1 = state_T.max_T.unsqueeze(1), state_T.sum_T.unsqueeze(1)
    # The largest score adds exp(0) = 1 to its sum, so only an empty row is below 1.
    weight_TS = shifted_exp(score_TS, max_T1) / sum_T1.clamp(min=1.0)
    return weight_TS.to(score_TS.dtype)


# --8<-- [end:online-softmax]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    score_17 = torch.tensor([[1.0, 3.0, 2.0, 5.0, 4.0, -math.inf, 0.0]])
    seen_1 = summarize(score_17[:, :2])
    print(f"scores 0, 1: max {seen_1.max_T.item()}, sum {seen_1.sum_T.item():.4f}")
    for start in range(2, 7, 2):
        seen_1 = merge(seen_1, summarize(score_17[:, start : start + 2]))
        name, total = f"and from {start}", seen_1.sum_T.item()
        print(f"{name}: max {seen_1.max_T.item()}, sum {total:.4f}")
    print(f"log of the sum of exp(score): {logsumexp(seen_1).item():.4f}")
    print(f"torch.logsumexp says:         {torch.logsumexp(score_17, 1).item():.4f}")
    # --8<-- [end:first-look]

    # --8<-- [start:overflow]
    large_13 = torch.tensor([[80.0, 89.0, 90.0]])
    naive_13 = torch.exp(large_13) / torch.exp(large_13).sum(1, keepdim=True)
    print("exp / sum:     ", naive_13.tolist())
    print("online softmax:", online_softmax(large_13, block=2).tolist())
    # --8<-- [end:overflow]

    # --8<-- [start:cost]
    lengths = [2**n for n in range(10, 17)]
    online, whole = [], []
    for length in lengths:
        row_any = torch.randn(1, length)
        for size, sizes in ((256, online), (length, whole)):
            blocks_any = row_any.split(size, dim=1)
            sizes.append(largest_bytes(functools.partial(scan, blocks_any)))
    print("largest tensor, S = 65536:", online[-1], "and", whole[-1], "bytes")
    plot_growth(lengths, {"blocks of 256": (online, 0), "whole row": (whole, 1)})
    plt.ylabel("bytes of the largest tensor")
    plt.show()
    # --8<-- [end:cost]

    # --8<-- [start:zero-start]
    low_12 = torch.tensor([[-1000.0, -1001.0]])
    for start in (0.0, -500.0, -math.inf):
        max_11 = low_12.amax(1, keepdim=True).clamp(min=start)
        part_12 = torch.exp(low_12 - max_11)
        weight_12 = part_12 / part_12.sum(1, keepdim=True)
        print(f"max starts at {start}: sum {part_12.sum():.4f}, {weight_12.tolist()}")
    # --8<-- [end:zero-start]

    # --8<-- [start:nan-start]
    padded_14 = torch.tensor([[-math.inf, -math.inf, 1.0, 2.0]])
    max_1, sum_1 = torch.full((1,), -math.inf), torch.zeros(1)
    for block_12 in padded_14.split(2, dim=1):
        new_1 = torch.maximum(max_1, block_12.amax(1))
        sum_1 = sum_1 * torch.exp(max_1 - new_1) + torch.exp(block_12 - new_1).sum(1)
        max_1 = new_1
        print("plain exp:", sum_1.item())
    print("shifted_exp:", scan(padded_14.split(2, dim=1)).sum_T.item())
    # --8<-- [end:nan-start]

    # --8<-- [start:half-sum]
    score_any = torch.zeros(1, 4096, dtype=torch.float16)
    total = torch.zeros((), dtype=torch.float16)
    for part in torch.exp(score_any[0]):
        total = total + part
    weight_any = torch.exp(score_any) / total
    print("sum of 4096 ones in float16:", total.item())
    print("so the weights add up to", weight_any.float().sum().item())
    print("sum in the state:", scan(score_any.split(1, dim=1)).sum_T.item())
    # --8<-- [end:half-sum]
