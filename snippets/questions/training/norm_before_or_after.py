"""Layer norm after or before each branch: the size of gradients at initialization."""

# --8<-- [start:imports]
import math

import torch
import torch.nn.functional as F
from torch import nn

# --8<-- [end:imports]


# --8<-- [start:measure]
def gradients(before: bool, layers: int, seed: int) -> tuple[list[float], list[float]]:
    """Return, layer by layer, the gradient norm of W2 and the size of the stream."""
    torch.manual_seed(seed)
    blocks = nn.ModuleList(
        nn.TransformerEncoderLayer(
            64, 4, 256, dropout=0.0, batch_first=True, norm_first=before
        )
        for _ in range(layers)
    )
    for weight_any in blocks.parameters():
        if weight_any.dim() > 1:
            nn.init.xavier_uniform_(weight_any)
    out = nn.Linear(64, 100)
    x_BTD, label_BT = torch.randn(4, 32, 64), torch.randint(100, (4, 32))
    sizes = []
    for block in blocks:
        x_BTD = block(x_BTD)
        sizes.append(x_BTD.detach().square().mean().sqrt().item())
    if before:  # the stream was never normalized: once, at the end
        x_BTD = F.layer_norm(x_BTD, (64,))
    F.cross_entropy(out(x_BTD).flatten(0, 1), label_BT.flatten()).backward()
    return [block.linear2.weight.grad.norm().item() for block in blocks], sizes


# --8<-- [end:measure]

if __name__ == "__main__":
    # --8<-- [start:depth]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    last, stream = {}, {}
    for layers in (6, 12, 24):
        for name, before in (("after", False), ("before", True)):
            runs = [gradients(before, layers, seed) for seed in range(4)]
            last[name, layers] = sum(norms[-1] for norms, _ in runs) / 4
            stream[name, layers] = sum(sizes[-1] for _, sizes in runs) / 4
        after, pre = last["after", layers], last["before", layers]
        print(f"{layers:2} layers: last gradient {after:.2f} after, {pre:.2f} before"
              f" (× √L: {pre * math.sqrt(layers):.2f}); size of the stream"
              f" {stream['after', layers]:.1f}, {stream['before', layers]:.1f}")  # fmt: skip
        assert after > 1.5 * pre
    assert last["after", 24] > 0.9 * last["after", 6]
    assert last["before", 24] < 0.6 * last["before", 6]
    # --8<-- [end:depth]

    # --8<-- [start:layers]
    torch.manual_seed(0)
    by_layer = {}
    for name, before in (("after", False), ("before", True)):
        runs_any = torch.tensor([gradients(before, 12, seed)[0] for seed in range(4)])
        by_layer[name] = runs_any.mean(0).tolist()
        print(f"norm {name:6}:", *[f"{norm:.2f}" for norm in by_layer[name]])
    assert max(by_layer["after"]) < 1.3 * min(by_layer["after"])
    assert by_layer["before"][0] > 2 * by_layer["before"][-1]
    # --8<-- [end:layers]
