"""Decoding a batch whose sequences have different lengths, and when they may change."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.decoding.kv_cache import rotate


# --8<-- [start:sequences]
def sequences(lengths: list[int]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Draw a new query, and keys and values so far, of each sequence; no positions."""
    q_any = [torch.randn(1, 2, 1, 8, dtype=torch.float64) for _ in lengths]
    k_any, v_any = (
        [torch.randn(1, 2, n, 8, dtype=torch.float64) for n in lengths]
        for _ in range(2)
    )
    return q_any, k_any, v_any


# --8<-- [end:sequences]


if __name__ == "__main__":
    # --8<-- [start:padded]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    lengths = [3, 7, 12]
    q_any, k_any, v_any = sequences(lengths)
    k_any = [rotate(each_any) for each_any in k_any]
    alone_any = [
        F.scaled_dot_product_attention(rotate(q_any[b], n - 1), k_any[b], v_any[b])
        for b, n in enumerate(lengths)
    ]
    room_any = torch.randn(2, 3, 2, 12, 8, dtype=torch.float64)  # of earlier requests
    for b, n in enumerate(lengths):
        room_any[0, b, :, :n], room_any[1, b, :, :n] = k_any[b], v_any[b]
    seen_any = torch.arange(12) < torch.tensor(lengths).reshape(3, 1, 1, 1)
    wrong = {}
    for name, mask_any, places in (
        ("own length, own position", seen_any, lengths),
        ("no mask", None, lengths),
        ("position of the longest", seen_any, [12] * 3),
    ):
        turned_any = [rotate(q_any[b], n - 1) for b, n in enumerate(places)]
        out_any = F.scaled_dot_product_attention(
            torch.cat(turned_any), *room_any, attn_mask=mask_any
        )
        off_any = (out_any - torch.cat(alone_any)).abs().amax(dim=(1, 2, 3))
        wrong[name] = (off_any > 1e-9).nonzero().flatten().tolist()
        print(f"{name:24} wrong in sequences {wrong[name]}")
    assert list(wrong.values()) == [[], [0, 1], [0, 1]]  # the longest is always right
    # --8<-- [end:padded]

    # --8<-- [start:packed]
    torch.manual_seed(0)
    lengths = [3, 7, 12]
    q_any, k_any, v_any = sequences(lengths)
    apart_any = [
        F.scaled_dot_product_attention(q_any[b], k_any[b], v_any[b]) for b in range(3)
    ]
    owner_any = torch.arange(3).repeat_interleave(torch.tensor(lengths))
    packed_any = F.scaled_dot_product_attention(
        *(torch.cat(x_any, dim=2) for x_any in (q_any, k_any, v_any)),
        attn_mask=owner_any == torch.arange(3).unsqueeze(1),
    )
    gap = (packed_any - torch.cat(apart_any, dim=2)).abs().max().item()
    print(
        f"packed: {len(owner_any)} keys, padded: {3 * max(lengths)}; off by {gap:.0e}"
    )
    assert gap < 1e-12
    # --8<-- [end:packed]

    # --8<-- [start:steps]
    torch.manual_seed(0)
    slots, wanted = 8, torch.randint(1, 201, (64,), device="cpu").tolist()
    static = sum(max(wanted[i : i + slots]) for i in range(0, len(wanted), slots))
    waiting, running, continuous = list(wanted), [], 0
    while waiting or running:
        while waiting and len(running) < slots:
            running.append(waiting.pop(0))
        running = [left - 1 for left in running if left > 1]
        continuous += 1
    busy = {
        n: sum(wanted) / (slots * steps)
        for n, steps in (("static", static), ("continuous", continuous))
    }
    print(f"static {static} steps, {busy['static']:.0%} of the slots busy")
    print(f"continuous {continuous} steps, {busy['continuous']:.0%} of the slots busy")
    assert sum(wanted) / slots <= continuous < static
    # --8<-- [end:steps]
