"""What autograd keeps of attention until the backward pass, in bytes."""

# --8<-- [start:imports]
import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

# --8<-- [end:imports]


# --8<-- [start:kept]
def kept(call) -> list[tuple[tuple[int, ...], int]]:
    """Return shape and bytes of each storage that one call keeps for its gradient."""
    found = {}

    def note(saved_any: Tensor) -> Tensor:
        """Write it down once, whatever views of it are saved."""
        storage = saved_any.untyped_storage()
        found[storage.data_ptr()] = (tuple(saved_any.shape), storage.nbytes())
        return saved_any

    with saved_tensors_hooks(note, lambda saved_any: saved_any):
        out_any = call()
    assert out_any.requires_grad  # and it lives until here: no storage is used twice
    return list(found.values())


# --8<-- [end:kept]


# --8<-- [start:naive]
def naive(q_BHTK: Tensor, k_BHSK: Tensor, v_BHSV: Tensor, drop: float = 0) -> Tensor:
    """Attend as the formula says, all scores at once."""
    score_BHTS = q_BHTK @ k_BHSK.mT / math.sqrt(q_BHTK.shape[-1])
    weight_BHTS = score_BHTS.softmax(-1)
    if drop:
        weight_BHTS = F.dropout(weight_BHTS, drop)
    return weight_BHTS @ v_BHSV


# --8<-- [end:naive]

if __name__ == "__main__":
    # --8<-- [start:list]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    H, T, K = 4, 512, 32
    qkv_any = [torch.randn(1, H, T, K, requires_grad=True) for _ in range(3)]
    for shape, size in kept(lambda: naive(*qkv_any)):
        print(f"{shape!s:14} {size / 2**20:.2f} MiB")
    # --8<-- [end:list]

    # --8<-- [start:ways]
    torch.manual_seed(0)
    H, K = 4, 32
    total = {}
    for T in (256, 512, 1024):
        qkv_any = [torch.randn(1, H, T, K, requires_grad=True) for _ in range(3)]
        ways = {
            "naive": lambda x_any=qkv_any: naive(*x_any),
            "naive, dropout": lambda x_any=qkv_any: naive(*x_any, drop=0.1),
            "SDPA": lambda x_any=qkv_any: F.scaled_dot_product_attention(*x_any),
            "recompute": lambda x_any=qkv_any: checkpoint(
                naive, *x_any, use_reentrant=False
            ),
        }
        for name, call in ways.items():
            total[name, T] = sum(size for _, size in kept(call))
        print(f"T = {T:4}:", ", ".join(f"{name} {total[name, T] / 2**20:.2f} MiB"
                                       for name in ways))  # fmt: skip
        inputs = 3 * 4 * H * T * K
        assert total["naive", T] == inputs + 4 * H * T**2  # the weights, nothing else
        assert total["naive, dropout", T] >= inputs + 9 * H * T**2
        assert total["recompute", T] == inputs
    assert total["SDPA", 1024] < 2.1 * total["SDPA", 512]  # linear
    # --8<-- [end:ways]

    # --8<-- [start:model]
    # Weights of a model in bfloat16: 32 layers of 32 heads, one sequence.
    L, H = 32, 32
    need = {T: 2 * L * H * T**2 / 2**30 for T in (1024, 2048, 8192)}
    for T, size in need.items():
        print(f"T = {T}: {size:.0f} GiB of weights kept for the backward pass")
    assert need[8192] == 16 * need[2048] == 128
    # --8<-- [end:model]
