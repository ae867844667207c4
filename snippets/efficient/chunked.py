"""Chunked attention: queries and keys piece by piece, forward and backward."""

# --8<-- [start:imports]
import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointError, checkpoint

# --8<-- [end:imports]
# isort: split
from snippets.efficient.online_softmax import shifted_exp
from snippets.foundations.scaled_dot_product import attend, check_sizes, weigh
from snippets.properties.cost import count_flops, peak_bytes, plot_growth, plt


# --8<-- [start:summary]
class Summary(NamedTuple):
    """What T queries know after some of the keys, relative to their largest score."""

    value_BHTV: Tensor  # the sum of exp(score - max) · value
    sum_BHT1: Tensor  # the sum of exp(score - max)
    max_BHT1: Tensor  # the largest score


# --8<-- [end:summary]


# --8<-- [start:summarize]
def summarize(
    q_BHTK: Tensor, k_BHCK: Tensor, v_BHCV: Tensor, mask_BHTC: Tensor
) -> Summary:
    """Return the summary of a chunk of C keys, in at least float32."""
    wide = torch.promote_types(q_BHTK.dtype, torch.float32)
    # What is seen by nobody here may hold anything. Clear it, or it reaches gradients.
    q_BHTK = q_BHTK.to(wide).masked_fill(~mask_BHTC.any(dim=3).unsqueeze(-1), 0.0)
    k_BHCK = k_BHCK.to(wide).masked_fill(~mask_BHTC.any(dim=2).unsqueeze(-1), 0.0)
    q_BHTK = q_BHTK / math.sqrt(q_BHTK.shape[-1])
    score_BHTC = torch.einsum("BHTK,BHCK->BHTC", q_BHTK, k_BHCK)
    score_BHTC = score_BHTC.masked_fill(~mask_BHTC, -math.inf)
    max_BHT1 = score_BHTC.detach().amax(dim=3, keepdim=True)
    part_BHTC = shifted_exp(score_BHTC, max_BHT1)
    sum_BHT1 = part_BHTC.sum(dim=3, keepdim=True)
    return Summary(weigh(part_BHTC, v_BHCV.to(wide)), sum_BHT1, max_BHT1)


# --8<-- [end:summarize]


# --8<-- [start:merge]
def merge(one_any: Summary, two_any: Summary) -> Summary:
    """Return the summary of the keys of both."""
    max_BHT1 = torch.maximum(one_any.max_BHT1, two_any.max_BHT1)
    first_BHT1 = shifted_exp(one_any.max_BHT1, max_BHT1)
    second_BHT1 = shifted_exp(two_any.max_BHT1, max_BHT1)
    value_BHTV = one_any.value_BHTV * first_BHT1 + two_any.value_BHTV * second_BHT1
    sum_BHT1 = one_any.sum_BHT1 * first_BHT1 + two_any.sum_BHT1 * second_BHT1
    return Summary(value_BHTV, sum_BHT1, max_BHT1)


# --8<-- [end:merge]


# --8<-- [start:attend-rows]
def attend_rows(
    q_BHTK: Tensor, k_BHSK: Tensor, v_BHSV: Tensor, mask_BHTS: Tensor, key_chunk: int
) -> Tensor:
    """Attend from one chunk of T queries, meeting the keys chunk by chunk.

    Returns (B, H, T, V) in the dtype of the queries.
    """
    value_BHTV = v_BHSV.new_zeros(*q_BHTK.shape[:3], v_BHSV.shape[3])
    max_BHT1 = value_BHTV.new_full((*q_BHTK.shape[:3], 1), -math.inf)
    seen_any = Summary(value_BHTV, torch.zeros_like(max_BHT1), max_BHT1)
    for start in range(0, k_BHSK.shape[2], key_chunk):
        part = slice(start, start + key_chunk)
        new_any = summarize(
            q_BHTK, k_BHSK[:, :, part], v_BHSV[:, :, part], mask_BHTS[..., part]
        )
        seen_any = merge(seen_any, new_any)
    # Only a query that saw no key has a sum below 1.
    return (seen_any.value_BHTV / seen_any.sum_BHT1.clamp(min=1.0)).to(q_BHTK.dtype)


# --8<-- [end:attend-rows]


# --8<-- [start:chunked-attention]
def chunked_attention(
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSV: Tensor,
    mask_BHTS: Tensor | None = None,
    query_chunk: int = 128,
    key_chunk: int = 128,
) -> Tensor:
    """Attend without a T × S tensor, forward or backward (Rabe and Staats 2021).

    The mask is boolean, True = may attend. Returns (B, H, T, V); a query that may see
    no key gets zeros. The backward computes each chunk of queries again. Raises
    ValueError when sizes do not fit or a chunk is less than 1.
    """
    check_sizes(q_BHTK, k_BHSK, v_BHSV, mask_BHTS)
    for name, size in (("query_chunk", query_chunk), ("key_chunk", key_chunk)):
        if size < 1:
            raise ValueError(f"{name} is {size}, expected at least 1")
    if mask_BHTS is None:  # a single True, seen as B × H × T × S of them
        shape = (*q_BHTK.shape[:3], k_BHSK.shape[2])
        mask_BHTS = torch.ones((), dtype=torch.bool, device=q_BHTK.device).expand(shape)
    rows_any = []
    for start in range(0, q_BHTK.shape[2], query_chunk):
        part = slice(start, start + query_chunk)
        rows_any.append(
            checkpoint(
                attend_rows,
                q_BHTK[:, :, part],
                k_BHSK,
                v_BHSV,
                mask_BHTS[:, :, part],
                key_chunk,
                use_reentrant=False,
            )
        )
    return torch.cat(rows_any, dim=2)


# --8<-- [end:chunked-attention]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    q_BHTK, k_BHSK = torch.randn(1, 2, 100, 16), torch.randn(1, 2, 130, 16)
    v_BHSV, mask_BHTS = torch.randn(1, 2, 130, 8), torch.rand(1, 2, 100, 130) < 0.7
    whole_BHTV = attend(q_BHTK, k_BHSK, v_BHSV, mask_BHTS)
    for sizes in ((100, 130), (32, 48), (7, 1)):
        out_BHTV = chunked_attention(q_BHTK, k_BHSK, v_BHSV, mask_BHTS, *sizes)
        gap = (out_BHTV - whole_BHTV).abs().max().item()
        print(f"chunks of {sizes[0]} queries, {sizes[1]} keys: differs by {gap:.0e}")
    # --8<-- [end:first-look]

    # --8<-- [start:work]
    def train(f, x_any: Tensor) -> None:
        """Run a forward and a backward."""
        f(x_any, x_any, x_any).sum().backward()

    x_any = torch.randn(1, 1, 512, 32, requires_grad=True)
    for f in (attend, chunked_attention):
        forward = count_flops(functools.partial(f, x_any, x_any, x_any))
        both = count_flops(functools.partial(train, f, x_any))
        print(f"{f.__name__}: {forward} FLOPs forward, {both} with backward")
    # --8<-- [end:work]

    # --8<-- [start:cost]
    lengths = [256, 512, 1024]
    peaks = {"attend": [], "chunked": [], "chunked, forward": [], "64 queries, √S": []}
    for length in lengths:
        x_any, key_chunk = torch.randn(1, 1, length, 32), math.isqrt(length)
        few_any, leaf_any = x_any[:, :, :64], x_any.clone().requires_grad_()
        forward = functools.partial(chunked_attention, x_any, x_any, x_any)
        few = functools.partial(
            chunked_attention, few_any, x_any, x_any, key_chunk=key_chunk
        )
        for sizes, call in zip(
            peaks.values(),
            (
                functools.partial(train, attend, leaf_any),
                functools.partial(train, chunked_attention, leaf_any),
                forward,
                few,
            ),
            strict=True,
        ):
            sizes.append(peak_bytes(call))
    for name, sizes in peaks.items():
        print(f"{name}: {sizes[-1] / 2**20:.2f} MiB at length {length}")
    stated = zip(peaks.items(), (2, 1, 1, 0.5), strict=True)
    plot_growth(lengths, {name: (sizes, power) for (name, sizes), power in stated})
    plt.ylabel("peak bytes")
    plt.show()
    # --8<-- [end:cost]

    # --8<-- [start:no-checkpoint]
    def saved_bytes(f, x_any: Tensor) -> int:
        """Return the bytes that a forward keeps for its backward."""
        kept = {}

        def keep(one_any: Tensor) -> Tensor:
            storage = one_any.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return one_any

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda one_any: one_any):
            out_any = f(x_any, x_any, x_any)
        return sum(kept.values()) if out_any.requires_grad else 0

    def no_checkpoint(q_any: Tensor, k_any: Tensor, v_any: Tensor) -> Tensor:
        """Attend chunk by chunk and keep all that the backward wants."""
        mask_any = torch.ones(1, 1, 128, k_any.shape[2], dtype=torch.bool)
        rows_any = [
            attend_rows(part_any, k_any, v_any, mask_any, 128)
            for part_any in q_any.split(128, dim=2)
        ]
        return torch.cat(rows_any, dim=2)

    leaf_any = torch.randn(1, 1, 1024, 32, requires_grad=True)
    for f in (attend, no_checkpoint, chunked_attention):
        print(f"{f.__name__} keeps {saved_bytes(f, leaf_any) / 2**20:.2f} MiB")
    # --8<-- [end:no-checkpoint]

    # --8<-- [start:last-chunk]
    q_any = torch.randn(1, 1, 130, 16)
    out_any = torch.zeros(1, 1, 130, 16)
    for n in range(130 // 32):
        part = slice(n * 32, (n + 1) * 32)
        out_any[:, :, part] = attend(q_any[:, :, part], q_any, q_any)
    left = (out_any == 0).all(3).sum().item()
    print("queries without an answer:", left)
    # --8<-- [end:last-chunk]

    # --8<-- [start:other-chunk]
    free = iter([128, 64])  # "free memory" in the forward, and in the backward

    def by_free_memory(x_any: Tensor) -> Tensor:
        """Attend with as large a chunk of keys as memory seems to allow."""
        mask_any = torch.ones(1, 1, 256, 256, dtype=torch.bool)
        return attend_rows(x_any, x_any, x_any, mask_any, next(free))

    leaf_any = torch.randn(1, 1, 256, 16, requires_grad=True)
    out_any = checkpoint(by_free_memory, leaf_any, use_reentrant=False)
    try:
        out_any.sum().backward()
    except CheckpointError as error:
        print("CheckpointError:", str(error).splitlines()[0][:66])
    # --8<-- [end:other-chunk]

    # --8<-- [start:reentrant]
    out_any = checkpoint(torch.exp, leaf_any, use_reentrant=True)
    try:
        torch.autograd.grad(out_any.sum(), leaf_any)
    except RuntimeError as error:
        print("RuntimeError:", str(error)[:61])
    # --8<-- [end:reentrant]
