"""Parameters and operations of attention do not depend on the number of heads."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:count]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    D, T = 512, 64
    x_1TD = torch.randn(1, T, D)
    counted = set()
    for H in (1, 8, 64):
        layer = nn.MultiheadAttention(D, H, bias=False, batch_first=True)
        with FlopCounterMode(display=False) as counter:
            layer(x_1TD, x_1TD, x_1TD)
        parameters = sum(weight_any.numel() for weight_any in layer.parameters())
        counted.add((parameters, counter.get_total_flops()))
        print(f"{H:2} heads of {D // H:3}: {parameters:,} parameters, "
              f"{counter.get_total_flops():,} FLOPs")  # fmt: skip
    assert counted == {(4 * D**2, 2 * T * 4 * D**2 + 2 * 2 * T**2 * D)}
    # --8<-- [end:count]

    # --8<-- [start:scores]
    torch.manual_seed(0)
    length, D = 256, 512
    scores = {}
    for H in (1, 8, 64):
        q_any = torch.randn(1, H, length, D // H)
        scores[H] = (q_any @ q_any.mT).numel()
        print(f"{H:2} heads: {scores[H]:,} scores to keep or to recompute")
    assert scores[64] == 64 * scores[1]
    # --8<-- [end:scores]

    # --8<-- [start:per-head]
    torch.manual_seed(0)
    # What is sometimes said: a head of full size each. Then the cost does grow.
    x_any = torch.randn(1, 64, 512)
    grown = {}
    for H in (1, 8):
        weight_DF = torch.randn(512, H * 512)
        with FlopCounterMode(display=False) as counter:
            head_any = (x_any @ weight_DF).unflatten(-1, (H, 512)).transpose(1, 2)
            F.scaled_dot_product_attention(head_any, head_any, head_any)
        grown[H] = counter.get_total_flops()
    print(f"heads of full size: 8 of them cost {grown[8] / grown[1]:.0f} times as much")
    assert grown[8] == 8 * grown[1]
    # --8<-- [end:per-head]
