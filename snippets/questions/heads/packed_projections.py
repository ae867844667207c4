"""Three projections in one matrix product: equal, if cut where it was joined."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch import nn

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:equal]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    B, T, D, H, G = 2, 5, 64, 8, 2  # 8 query heads share 2 heads of keys and values
    K = D // H
    rows = [H * K, G * K, G * K]
    apart = [nn.Linear(D, n, bias=False).double() for n in rows]
    packed_MD = torch.cat([layer.weight for layer in apart])  # M = 64 + 16 + 16 rows
    x_BTD = torch.randn(B, T, D).double().requires_grad_()
    cut_any = F.linear(x_BTD, packed_MD).split(rows, dim=-1)
    slopes_any = []
    for parts_any in (cut_any, [layer(x_BTD) for layer in apart]):
        loss = sum(part_any.square().sum() for part_any in parts_any)
        leaves_any = [x_BTD, *(layer.weight for layer in apart)]
        slopes_any.append(torch.autograd.grad(loss, leaves_any, retain_graph=True))
    for layer, part_any in zip(apart, cut_any, strict=True):
        torch.testing.assert_close(part_any, layer(x_BTD))
    torch.testing.assert_close(slopes_any[0], slopes_any[1])
    print("packed", tuple(packed_MD.shape), "apart", [(n, D) for n in rows])
    print("outputs and gradients: equal")
    # --8<-- [end:equal]

    # --8<-- [start:layouts]
    D, H = 8, 2
    row_M = torch.arange(3 * D)
    layout = {
        "three blocks": row_M // D,
        "head by head": row_M // (D // H) % 3,
    }
    for name, part_M in layout.items():
        print(f"{name}: {''.join('qkv'[part] for part in part_M.tolist())}")
    wrong_M = layout["three blocks"] != layout["head by head"]
    wrong = wrong_M.float().mean().item()
    print(f"read as the other: {wrong:.0%} of rows are taken for something else")
    assert wrong > 0.5
    # --8<-- [end:layouts]

    # --8<-- [start:misread]
    torch.manual_seed(0)
    T, D, H = 5, 8, 2
    layer = nn.MultiheadAttention(D, H, bias=False, batch_first=True)
    x_1TD = torch.randn(1, T, D)
    theirs_1TD, _ = layer(x_1TD, x_1TD, x_1TD)
    y_1TM = F.linear(x_1TD, layer.in_proj_weight)  # M = 3 D
    views = {
        "three blocks": y_1TM.unflatten(-1, (3, H, D // H)).permute(2, 0, 3, 1, 4),
        "head by head": y_1TM.unflatten(-1, (H, 3, D // H)).permute(3, 0, 2, 1, 4),
    }
    gap = {}
    for name, view_31HTK in views.items():
        out_1HTK = F.scaled_dot_product_attention(*view_31HTK)
        own_1TD = layer.out_proj(out_1HTK.transpose(1, 2).flatten(2))
        gap[name] = (own_1TD - theirs_1TD).abs().max().item()
        print(f"in_proj_weight read as {name}: off by {gap[name]:.1g}")
    assert gap["three blocks"] < 1e-6
    assert gap["head by head"] > 0.01
    # --8<-- [end:misread]
