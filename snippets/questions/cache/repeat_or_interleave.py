"""repeat_interleave groups neighbors; repeat does not, and its shape is the same."""

# --8<-- [start:imports]
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:copies]
def copies(x_BGSK: Tensor, M: int) -> dict[str, Tensor]:
    """Give each of G heads M readers, in four ways; each is (B, H, S, K)."""
    B, G, S, K = x_BGSK.shape
    return {
        "repeat_interleave": x_BGSK.repeat_interleave(M, dim=1),
        "expand, then flatten": x_BGSK.unsqueeze(2).expand(B, G, M, S, K).flatten(1, 2),
        "index h // M": x_BGSK[:, torch.arange(G * M) // M],
        "repeat": x_BGSK.repeat(1, M, 1, 1),
    }


# --8<-- [end:copies]


if __name__ == "__main__":
    # --8<-- [start:order]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    H, G, M = 8, 2, 4
    q_BHTK, k_BGTK, v_BGTK = (torch.randn(1, n, 6, 16) for n in (H, G, G))
    right_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BGTK, v_BGTK, enable_gqa=True)
    index_1G11 = torch.arange(G).reshape(1, G, 1, 1)
    off = {}
    for name in copies(k_BGTK, M):
        k_BHTK, v_BHTK = copies(k_BGTK, M)[name], copies(v_BGTK, M)[name]
        out_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK)
        off[name] = (out_BHTK - right_BHTK).abs().max().item()
        assert out_BHTK.shape == right_BHTK.shape  # no shape gives it away
        heads = copies(index_1G11, M)[name].flatten().tolist()
        print(f"{name:21} reads {heads}, off by {off[name]:.2f}")
    assert off.pop("repeat") > 0.5
    assert max(off.values()) < 1e-5
    # --8<-- [end:order]

    # --8<-- [start:hidden]
    torch.manual_seed(0)
    q_any, k_any, v_any = (torch.randn(1, n, 6, 16) for n in (8, 2, 2))
    right_any = F.scaled_dot_product_attention(q_any, k_any, v_any, enable_gqa=True)
    order = [g * 4 + j for j in range(4) for g in range(2)]
    pair_any = [x_any.repeat(1, 4, 1, 1) for x_any in (k_any, v_any)]
    wrong_any = F.scaled_dot_product_attention(q_any[:, order], *pair_any)
    gap = (wrong_any - right_any[:, order]).abs().max().item()
    print(f"query heads in the order {order}: repeat is off by {gap:.2f}")
    assert gap < 1e-5
    # --8<-- [end:hidden]

    # --8<-- [start:names]
    torch.manual_seed(0)
    kv = [0, 1]
    found = {
        "torch.repeat_interleave(x, 2)": torch.tensor(kv).repeat_interleave(2).tolist(),
        "torch x.repeat(2)": torch.tensor(kv).repeat(2).tolist(),
        "np.repeat(x, 2)": np.repeat(kv, 2).tolist(),
        "np.tile(x, 2)": np.tile(kv, 2).tolist(),
    }
    for name, heads in found.items():
        print(f"{name:30} {heads}")
    assert found["np.repeat(x, 2)"] == found["torch.repeat_interleave(x, 2)"]
    assert found["np.tile(x, 2)"] == found["torch x.repeat(2)"]
    # --8<-- [end:names]

    # --8<-- [start:memory]
    torch.manual_seed(0)
    x_1GSK = torch.randn(1, 2, 6, 16)
    view_any = x_1GSK.unsqueeze(2).expand(1, 2, 4, 6, 16)
    flat_any = view_any.flatten(1, 2)
    for name, x_any in (("expand", view_any), ("flatten", flat_any)):
        shared = (
            x_any.untyped_storage().data_ptr() == x_1GSK.untyped_storage().data_ptr()
        )
        print(f"{name}: {x_any.untyped_storage().nbytes()} bytes, a view: {shared}")
    assert flat_any.untyped_storage().nbytes() == 4 * x_1GSK.nbytes
    # --8<-- [end:memory]
