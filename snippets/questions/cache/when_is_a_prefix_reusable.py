"""Cached keys are reusable up to the first token that differs, and not after it."""

# --8<-- [start:imports]
import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:layer-keys]
def layer_keys(x_TK: Tensor, to_k_LKK: Tensor) -> Tensor:
    """Return the keys of all layers of causal attention without positions, (L, T, K)."""
    keys_any = []
    for to_k_KK in to_k_LKK:
        k_1TK = (x_TK @ to_k_KK).unsqueeze(0)
        keys_any.append(k_1TK)
        x_TK = x_TK + F.scaled_dot_product_attention(
            x_TK.unsqueeze(0), k_1TK, k_1TK, is_causal=True
        ).squeeze(0)
    return torch.cat(keys_any)


# --8<-- [end:layer-keys]


# --8<-- [start:block-names]
def block_names(tokens: list[int], size: int, chained: bool = True) -> list[str]:
    """Name each full block by its tokens and, when chained, by all before it."""
    names, parent = [], ""
    for start in range(0, len(tokens) - size + 1, size):
        text = f"{parent if chained else ''}|{tokens[start : start + size]}"
        parent = hashlib.sha256(text.encode()).hexdigest()[:6]
        names.append(parent)
    return names


# --8<-- [end:block-names]


if __name__ == "__main__":
    # --8<-- [start:same-text]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    table_any = torch.randn(20, 16, dtype=torch.float64)  # a vector for each token
    to_k_LKK = torch.randn(2, 16, 16, dtype=torch.float64) / 4
    document = [5, 6, 7, 8]
    after_any = layer_keys(table_any[[1, 2, 3, 4, *document]], to_k_LKK)
    other_any = layer_keys(table_any[[9, 2, 3, 4, *document]], to_k_LKK)
    moved_L = (other_any - after_any)[:, 4:].abs().amax(dim=(1, 2))
    for layer, moved in enumerate(moved_L.tolist(), start=1):
        print(f"layer {layer}: another first token moves the document by {moved:.2g}")
    assert moved_L[0] < 1e-12 < 0.01 < moved_L[1]
    # --8<-- [end:same-text]

    # --8<-- [start:first-difference]
    torch.manual_seed(0)
    table_any = torch.randn(20, 16, dtype=torch.float64)
    to_k_LKK = torch.randn(2, 16, 16, dtype=torch.float64) / 4
    prompt = list(range(12))
    keys_any = layer_keys(table_any[prompt], to_k_LKK)
    reusable = {}
    for place in (0, 4, 11, 12):
        changed = [19 if t == place else token for t, token in enumerate(prompt)]
        off_any = layer_keys(table_any[changed], to_k_LKK) - keys_any
        same_any = off_any.abs().amax(dim=(0, 2)) < 1e-9
        reusable[place] = int(same_any.sum())
        assert same_any[:place].all()  # nothing after the change is the same
        print(f"first difference at {place:2}: {reusable[place]} of 12 positions stay")
    assert all(count == place for place, count in reusable.items())
    # --8<-- [end:first-difference]

    # --8<-- [start:blocks]
    torch.manual_seed(0)
    system, one, two = list(range(8)), [11, 12, 13, 14], [15, 16, 17, 18]
    prompts = {
        "the same": system + one + two,
        "last block differs": [*system, *one, 15, 16, 17, 19],
        "blocks swapped": system + two + one,
        "a token in front": [19, *system, *one, *two],
    }
    hits = {}
    for name, tokens in prompts.items():
        for chained in (True, False):
            known = block_names(prompts["the same"], 4, chained)
            found = block_names(tokens, 4, chained)
            hits[name, chained] = len(set(known) & set(found))
        print(
            f"{name:18} {hits[name, True]} of 4 blocks reused,"
            f" {hits[name, False]} by content alone"
        )
    assert hits["blocks swapped", True] == 2  # the system prompt
    assert hits["blocks swapped", False] == 4  # two of them wrong
    # --8<-- [end:blocks]
