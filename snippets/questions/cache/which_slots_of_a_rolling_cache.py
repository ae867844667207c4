"""A rolling cache: position p in slot p mod W; which positions, in which order."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.decoding.kv_cache import rotate
from snippets.sparse.sliding_window import window_mask


# --8<-- [start:roll]
def roll(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, W: int, wrap: bool) -> Tensor:
    """Decode T tokens one by one with a ring of W slots; returns (B, H, T, K).

    Queries and keys come without positions and are rotated to position t, or, when
    `wrap` is set, to the number of their slot, which is wrong.
    """
    B, H, T, K = q_BHTK.shape
    ring_2BHWK = q_BHTK.new_zeros(2, B, H, W, K)
    out_any = []
    for t in range(T):
        position = t % W if wrap else t
        ring_2BHWK[0, :, :, t % W] = rotate(k_BHTK[:, :, t : t + 1], position)[:, :, 0]
        ring_2BHWK[1, :, :, t % W] = v_BHTK[:, :, t]
        k_any, v_any = ring_2BHWK[:, :, :, : t + 1]  # before the ring is full
        q_any = rotate(q_BHTK[:, :, t : t + 1], position)
        out_any.append(F.scaled_dot_product_attention(q_any, k_any, v_any))
    return torch.cat(out_any, dim=2)


# --8<-- [end:roll]


if __name__ == "__main__":
    # --8<-- [start:slots]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    window, slot = 4, [-1] * 4
    for position in range(7):
        slot[position % window] = position
        print(f"after position {position}: slots hold {slot}")
        wanted = range(max(0, position - window + 1), position + 1)
        assert sorted(set(slot) - {-1}) == list(wanted)  # the last W, itself included
    # --8<-- [end:slots]

    # --8<-- [start:equal]
    torch.manual_seed(0)
    q_BHTK, k_BHTK, v_BHTK = torch.randn(3, 1, 2, 12, 8, dtype=torch.float64)
    seen_TT = window_mask(12, 12, 4)
    full_BHTK = F.scaled_dot_product_attention(
        rotate(q_BHTK), rotate(k_BHTK), v_BHTK, attn_mask=seen_TT
    )
    first = {}
    for name, wrap in (("position t", False), ("slot t mod W", True)):
        off_any = roll(q_BHTK, k_BHTK, v_BHTK, 4, wrap) - full_BHTK
        wrong_any = (off_any.abs().amax(dim=(0, 1, 3)) > 1e-9).nonzero().flatten()
        first[name] = wrong_any.tolist()
        print(f"rotated by {name}: wrong at positions {first[name]}")
    assert first == {"position t": [], "slot t mod W": [4, 5, 6, 8, 9, 10]}
    # --8<-- [end:equal]

    # --8<-- [start:order]
    torch.manual_seed(0)
    q_any, k_any, v_any = torch.randn(3, 1, 1, 4, 8, dtype=torch.float64)
    ring = [4, 5, 6, 3]  # positions in the slots after position 6
    by_slot_S = torch.tensor([position - 3 for position in ring])
    age_any = torch.arange(4, dtype=torch.float64) - 3  # ALiBi: minus the distance
    moved = {}
    for name, bias_any in (("none", torch.zeros_like(age_any)), ("ALiBi", age_any)):
        one_any = F.scaled_dot_product_attention(
            q_any[:, :, -1:], k_any, v_any, attn_mask=bias_any.expand(1, 1, 1, 4)
        )
        two_any = F.scaled_dot_product_attention(  # the bias stays in slot order
            q_any[:, :, -1:],
            k_any[:, :, by_slot_S],
            v_any[:, :, by_slot_S],
            attn_mask=bias_any.expand(1, 1, 1, 4),
        )
        moved[name] = (one_any - two_any).abs().max().item()
        print(f"bias {name:5}: slot order moves the output by {moved[name]:.2g}")
    assert moved["none"] < 1e-12 < 0.01 < moved["ALiBi"]
    # --8<-- [end:order]
