"""What the 8 of "GQA-8" counts: key/value heads, not query heads a group."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:readers]
def readers(heads: int, kv_heads: int, changed: int) -> list[int]:
    """Return the query heads whose output moves when one key/value head changes."""
    q_any = torch.randn(1, heads, 4, 8)
    k_any, v_any = torch.randn(2, 1, kv_heads, 4, 8)
    other_any = v_any.clone()
    other_any[:, changed] += 1

    def attend(v_BGSV: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q_any, k_any, v_BGSV, enable_gqa=True)

    moved_any = (attend(other_any) - attend(v_any)).abs().amax(dim=(0, 2, 3)) > 0.5
    return moved_any.nonzero().flatten().tolist()


# --8<-- [end:readers]


if __name__ == "__main__":
    # --8<-- [start:two-readings]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    right = readers(heads=32, kv_heads=8, changed=0)
    wrong = readers(heads=32, kv_heads=32 // 8, changed=0)
    print("8 kv heads, kv head 0 is read by query heads:", right)
    print("8 query heads a group, kv head 0 is read by: ", wrong)
    assert right == list(range(4))
    assert wrong == list(range(8))
    # --8<-- [end:two-readings]

    # --8<-- [start:ends]
    torch.manual_seed(0)
    all_heads = list(range(32))
    for name, kv_heads in (("GQA-1 as G = 1", 1), ("GQA-1 as H/G = 1", 32)):
        shared = readers(32, kv_heads, changed=0)
        print(
            f"{name}:", "MQA" if shared == all_heads else "MHA", len(shared), "readers"
        )
        assert shared == (all_heads if kv_heads == 1 else [0])
    # --8<-- [end:ends]

    # --8<-- [start:configs]
    torch.manual_seed(0)
    ratio = {}
    for name, heads in (("8B", 32), ("70B", 64), ("405B", 128)):
        kv_heads, size = 8, 128
        swapped = heads // kv_heads  # kv heads if the 8 were a group size
        ratio[name] = swapped / kv_heads
        print(
            f"Llama 3 {name:4} H = {heads:3}: G = {kv_heads}, H/G = {heads // kv_heads:2},"
            f" cache {2 * kv_heads * size} numbers, misread {2 * swapped * size}"
        )
    assert ratio == {"8B": 0.5, "70B": 1.0, "405B": 2.0}
    # --8<-- [end:configs]
