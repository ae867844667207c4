"""Decoding with a cache, in pieces of any size, gives what one pass gives."""

# --8<-- [start:imports]
import torch
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
from snippets.decoding.kv_cache import CachedAttention, KVCache, rotate


# --8<-- [start:feed]
def feed(layers: list[nn.Module], x_BTD: Tensor, cuts: list[int] | None) -> Tensor:
    """Run a stack of layers with a residual, in one pass or in pieces of these sizes."""
    B, T = x_BTD.shape[:2]
    caches = [KVCache(B, 4, T, 8, x_BTD.dtype) if cuts else None for _ in layers]
    done_any = []
    for piece_any in x_BTD.split(cuts or [T], dim=1):
        for layer, cache in zip(layers, caches, strict=True):
            piece_any = piece_any + layer(piece_any, cache)
        done_any.append(piece_any)
    return torch.cat(done_any, dim=1)


# --8<-- [end:feed]


if __name__ == "__main__":
    # --8<-- [start:pieces]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    layers = [CachedAttention(model_size=32, heads=4).double() for _ in range(2)]
    x_BTD = torch.randn(2, 12, 32, dtype=torch.float64)
    gap = {}
    with torch.no_grad():
        whole_BTD = feed(layers, x_BTD, None)
        for cuts in ([1] * 12, [12], [5, 5, 2], [7, 1, 1, 1, 1, 1], [1, 11]):
            off_BTD = feed(layers, x_BTD, cuts) - whole_BTD
            gap[tuple(cuts)] = off_BTD.abs().max().item()
            print(f"{gap[tuple(cuts)]:.0e} in pieces of", *cuts)
    assert max(gap.values()) < 1e-12
    # --8<-- [end:pieces]

    # --8<-- [start:bits]
    torch.manual_seed(0)
    layers = [CachedAttention(model_size=32, heads=4) for _ in range(2)]
    x_BTD = torch.randn(2, 12, 32)
    with torch.no_grad():
        off_BTD = feed(layers, x_BTD, [5, 5, 2]) - feed(layers, x_BTD, None)
    single = off_BTD.abs().max().item()
    print(f"float32, outputs near 1: largest difference {single:.0e}")
    assert single < 1e-5
    # --8<-- [end:bits]

    # --8<-- [start:wrong-mask]
    torch.manual_seed(0)
    q_any, k_any, v_any = torch.randn(3, 1, 1, 12, 8).double().unbind()
    attend = nn.functional.scaled_dot_product_attention
    right_any = attend(rotate(q_any), rotate(k_any), v_any, is_causal=True)
    wrong = {}
    for name in ("is_causal=True", "no mask", "bottom right", "positions from 0"):
        done_any, cache_any = [], k_any[:, :, :0]
        for start, stop in ((0, 5), (5, 10), (10, 12)):
            seen_any = torch.ones(stop - start, stop, dtype=torch.bool).tril(start)
            how = {"attn_mask": None if name == "no mask" else seen_any}
            how = {"is_causal": True} if name == "is_causal=True" else how
            first = 0 if name == "positions from 0" else start
            part_any = rotate(q_any[:, :, start:stop], first)
            new_any = rotate(k_any[:, :, start:stop], first)
            cache_any = torch.cat([cache_any, new_any], dim=2)
            done_any.append(attend(part_any, cache_any, v_any[:, :, :stop], **how))
        off_any = (torch.cat(done_any, dim=2) - right_any).abs().amax(dim=3) > 1e-9
        wrong[name] = off_any.flatten().nonzero().flatten().tolist()
        print(f"{name:16} wrong at positions {wrong[name]}")
    assert wrong["is_causal=True"] == [5, 6, 7, 8, 9, 10, 11]
    assert wrong["no mask"] == [0, 1, 2, 3, 5, 6, 7, 8, 10]  # a chunk's last is right
    assert wrong["bottom right"] == []
    assert wrong["positions from 0"] == [5, 6, 7, 8, 9, 10, 11]
    # --8<-- [end:wrong-mask]
