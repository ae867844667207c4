"""Layers that read the keys and values of another layer: CLA and YOCO."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:run]
Made = dict[int, tuple[Tensor, Tensor]]


def run(x_TK: Tensor, weight_L3KK: Tensor, owner: list[int], made: Made) -> Tensor:
    """Run layers of causal attention; layer i reads the K and V of layer owner[i].

    `made` holds keys and values of earlier positions, by layer, and gets the new.
    """
    for layer, (to_q_KK, to_k_KK, to_v_KK) in enumerate(weight_L3KK):
        if owner[layer] == layer:
            pair_any = (x_TK @ to_k_KK, x_TK @ to_v_KK)
            if layer in made:
                pair_any = tuple(
                    map(torch.cat, zip(made[layer], pair_any, strict=True))
                )
            made[layer] = pair_any
        k_SK, v_SK = made[owner[layer]]
        T, S = len(x_TK), len(k_SK)
        seen_TS = torch.ones(T, S, dtype=torch.bool).tril(S - T)
        q_any = ((x_TK @ to_q_KK)[None], k_SK[None], v_SK[None])
        x_TK = x_TK + F.scaled_dot_product_attention(*q_any, attn_mask=seen_TS)[0]
    return x_TK


# --8<-- [end:run]


if __name__ == "__main__":
    # --8<-- [start:decode]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    weight_L3KK = torch.randn(8, 3, 16, 16, dtype=torch.float64) / 4
    x_any = torch.randn(10, 16, dtype=torch.float64)
    owners = {
        "each its own": [0, 1, 2, 3, 4, 5, 6, 7],
        "pairs (CLA)": [0, 0, 2, 2, 4, 4, 6, 6],
        "upper half (YOCO)": [0, 1, 2, 3, 4, 4, 4, 4],
    }
    caches = {}
    for name, owner in owners.items():
        made = {}
        run(x_any[:9], weight_L3KK, owner, made)
        last_any = run(x_any[9:], weight_L3KK, owner, made)
        gap = (last_any - run(x_any, weight_L3KK, owner, {})[9:]).abs().max().item()
        caches[name] = len(made)
        print(f"{name:17} {len(made)} caches for 8 layers, decoding off by {gap:.0e}")
        assert gap < 1e-12
    assert list(caches.values()) == [8, 4, 5]
    # --8<-- [end:decode]

    # --8<-- [start:early-exit]
    torch.manual_seed(0)
    weight_L3KK = torch.randn(8, 3, 16, 16, dtype=torch.float64) / 4
    x_any = torch.randn(10, 16, dtype=torch.float64)
    off = {}
    for name, upper in (("YOCO", [0, 0, 0, 0]), ("CLA", [0, 0, 2, 2])):
        owner = [0, 1, 2, 3] + [4 + layer for layer in upper]
        lower_any = run(x_any, weight_L3KK[:4], owner[:4], {})
        old_any = tuple(lower_any[:9] @ w_any for w_any in weight_L3KK[4, 1:])
        last_any = run(lower_any[9:], weight_L3KK[4:], upper, {0: old_any})  # one row
        off[name] = (
            (last_any - run(x_any, weight_L3KK, owner, {})[9:]).abs().max().item()
        )
        print(f"{name}: upper layers on the last position only, off by {off[name]:.1g}")
    print(f"layers × positions: {8 * 10} in full, {4 * 10 + 4} with early exit")
    assert off["YOCO"] < 1e-12 < 0.01 < off["CLA"]
    # --8<-- [end:early-exit]

    # --8<-- [start:bytes]
    torch.manual_seed(0)
    layers, each, window = 32, 2 * 8 * 128 * 2, 1024  # bytes a token, as in Llama 3 8B
    room = {}
    for tokens in (1024, 8192, 131072):
        room[tokens] = (
            layers * each * tokens,
            layers // 2 * each * tokens,
            layers // 2 * each * min(window, tokens) + each * tokens,
        )
        full, pairs, half = (number / 2**20 for number in room[tokens])
        print(
            f"{tokens:6} tokens: full {full:.0f}, CLA {pairs:.0f}, YOCO {half:.0f} MiB"
        )
    assert room[131072][2] < room[131072][0] / 28
    assert room[1024][2] > room[1024][1]  # short prompts gain nothing over CLA
    # --8<-- [end:bytes]
