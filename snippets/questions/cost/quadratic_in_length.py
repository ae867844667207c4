"""Attention costs T²D for its scores and TD² for its projections."""

# --8<-- [start:imports]
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:grow]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    D = 256
    layer = nn.MultiheadAttention(D, 4, bias=False, batch_first=True)
    flops = {}
    print("   T   projections       scores")
    for length in (256, 512, 1024, 2048):
        x_any = torch.randn(1, length, D)
        with FlopCounterMode(display=False) as counter:
            layer(x_any, x_any, x_any)
        flops[length] = counter.get_total_flops()
        linear = 2 * length * 4 * D**2
        square = flops[length] - linear
        print(f"{length:4} {linear:13,} {square:12,}")
        assert square == 4 * length**2 * D
    print(f"from 1024 to 2048: {flops[2048] / flops[1024]:.2f} times as many")
    assert 2 < flops[2048] / flops[1024] < 4
    # --8<-- [end:grow]

    # --8<-- [start:all-pairs]
    torch.manual_seed(0)
    x_68 = torch.randn(6, 8, requires_grad=True)
    out_68 = (x_68 @ x_68.T / 4).softmax(-1) @ x_68
    reach_66 = torch.stack(
        [torch.autograd.grad(out_68[t].sum(), x_68, retain_graph=True)[0].norm(dim=-1)
         for t in range(6)]
    )  # fmt: skip
    print("outputs that depend on token 0:", (reach_66[:, 0] > 0).sum().item(), "of 6")
    assert (reach_66 > 0).all()  # every output on every token: all pairs
    # --8<-- [end:all-pairs]
