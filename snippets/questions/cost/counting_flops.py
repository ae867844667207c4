"""What FlopCounterMode counts, and the rule of 6N with its attention term."""

# --8<-- [start:imports]
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

# --8<-- [end:imports]


# --8<-- [start:flops]
def flops(call) -> int:
    """Return what the counter says of one call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


# --8<-- [end:flops]


# --8<-- [start:block]
class Block(nn.Module):
    """One layer: plain attention with one head, then the feed-forward part."""

    def __init__(self, D: int) -> None:
        """Make matrices without biases: 12 D² weights."""
        super().__init__()
        self.qkv, self.out = (nn.Linear(D, n * D, bias=False) for n in (3, 1))
        self.up = nn.Linear(D, 4 * D, bias=False)
        self.down = nn.Linear(4 * D, D, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the layer's output (B, T, D)."""
        q_BTD, k_BTD, v_BTD = self.qkv(x_BTD).chunk(3, dim=-1)
        weight_BTT = (q_BTD @ k_BTD.mT / math.sqrt(q_BTD.shape[-1])).softmax(-1)
        x_BTD = x_BTD + self.out(weight_BTT @ v_BTD)
        return x_BTD + self.down(self.up(x_BTD).relu())


# --8<-- [end:block]

if __name__ == "__main__":
    # --8<-- [start:counts]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    T, D = 256, 64
    x_11TD, w_DD = torch.randn(1, 1, T, D), torch.randn(D, D)
    x_any = [x_11TD] * 3
    sdpa = F.scaled_dot_product_attention
    with sdpa_kernel(SDPBackend.MATH):
        math_full = flops(lambda: sdpa(*x_any))
        math_causal = flops(lambda: sdpa(*x_any, is_causal=True))
    counted = {
        "x @ w": flops(lambda: x_11TD @ w_DD),
        "the same, multiplied and summed": flops(
            lambda: (x_11TD[..., None] * w_DD).sum(-2)
        ),
        "softmax, norm, exp": flops(
            lambda: F.layer_norm(x_11TD.softmax(-1), [D]).exp()
        ),
        "attention, by matrix products": flops(
            lambda: (x_11TD @ x_11TD.mT).softmax(-1) @ x_11TD
        ),
        "SDPA, math": math_full,
        "SDPA, math, causal": math_causal,
        "SDPA, as it comes": flops(lambda: sdpa(*x_any)),
    }
    for name, number in counted.items():
        print(f"{name:32} {number:12,}")
    assert counted["x @ w"] == 2 * T * D * D  # a multiply-add is two
    assert counted["the same, multiplied and summed"] == 0
    assert math_full == math_causal == 4 * T * T * D  # no discount for the triangle
    assert counted["SDPA, as it comes"] in (0, math_full)  # depends on the kernel
    # --8<-- [end:counts]

    # --8<-- [start:rule]
    torch.manual_seed(0)
    D, L, words = 64, 3, 500
    embed, unembed = nn.Embedding(words, D), nn.Linear(D, words, bias=False)
    blocks = nn.ModuleList([Block(D) for _ in range(L)])
    N = L * 12 * D**2 + words * D  # weights of matrix products; the lookup is none
    share, more = {}, {}

    def step(T: int, again: bool = False) -> None:
        """Run forward and backward once; `again` recomputes each block."""
        x_any = embed(torch.randint(words, (1, T)))
        for block in blocks:
            x_any = (
                checkpoint(block, x_any, use_reentrant=False) if again else block(x_any)
            )
        unembed(x_any).logsumexp(-1).sum().backward()

    for T in (64, 384, 1024):
        each = flops(lambda T=T: step(T)) / T
        assert each == 6 * N + 12 * L * T * D
        share[T] = 1 - 6 * N / each
        more[T] = flops(lambda T=T: step(T, again=True)) / T / each
        print(f"T = {T:4}: {each:9,.0f} FLOPs a token, 6N = {6 * N:,}; "
              f"attention {share[T]:.0%}; with recomputing × {more[T]:.2f}")  # fmt: skip
    assert share[64] < 0.15 < 0.5 < share[1024]
    assert 1.2 < more[384] < 4 / 3
    # --8<-- [end:rule]
