"""Operations per byte: many in prefill, about one in a step of decoding."""

# --8<-- [start:imports]
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# --8<-- [end:imports]


# --8<-- [start:intensity]
def intensity(tokens: int, D: int) -> float:
    """Return FLOPs for each byte moved by one linear layer in bfloat16.

    Moved are the weights once, the inputs and the outputs.
    """
    layer = nn.Linear(D, D, bias=False, device="meta")
    x_TD = torch.empty(tokens, D, device="meta")
    with FlopCounterMode(display=False) as counter:
        layer(x_TD)
    moved = 2 * (layer.weight.numel() + 2 * x_TD.numel())
    return counter.get_total_flops() / moved


# --8<-- [end:intensity]

if __name__ == "__main__":
    # --8<-- [start:linear]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    ridge = 989e12 / 3.35e12  # H100 SXM: dense bfloat16 FLOP/s over bytes/s
    print(f"an H100 can do {ridge:.0f} FLOPs for each byte it reads")
    ratio = {}
    for tokens in (1, 8, 64, 512, 2048):
        ratio[tokens] = intensity(tokens, 4096)
        bound = "compute" if ratio[tokens] > ridge else "memory"
        print(f"{tokens:4} tokens: {ratio[tokens]:6.1f} FLOPs a byte, bound by {bound}")
    enough = next(n for n in range(300, 400) if intensity(n, 4096) > ridge)
    print(f"bound by compute from {enough} tokens on")
    assert ratio[1] < 1.01
    assert ratio[64] < ridge < ratio[512]
    # --8<-- [end:linear]

    # --8<-- [start:cache]
    # Attention of one new token over S cached keys and values: H query heads, G kv heads.
    step = {}
    for name, heads, groups in (("MHA", 32, 32), ("GQA", 32, 8), ("MQA", 32, 1)):
        S, K = 4096, 128
        flops = 2 * 2 * heads * S * K
        moved = 2 * 2 * groups * S * K  # bytes of keys and values in bfloat16
        step[name] = flops / moved
        print(
            f"{name}, {groups} kv heads: {step[name]:.0f} FLOPs for each byte of cache"
        )
    assert list(step.values()) == [1, 4, 32]
    # --8<-- [end:cache]
