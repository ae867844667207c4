"""From which length on the scores cost more than everything else in a layer."""

# --8<-- [start:imports]
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# --8<-- [end:imports]


# --8<-- [start:shares]
def shares(T: int, D: int) -> dict[str, int]:
    """Return the FLOPs of one layer: projections, scores and mixing, feed-forward."""
    layer = nn.TransformerEncoderLayer(D, 4, 4 * D, batch_first=True)
    x_1TD = torch.randn(1, T, D)
    with FlopCounterMode(display=False) as counter:
        layer(x_1TD)
    ahead = 2 * T * 8 * D**2
    projections = 2 * T * 4 * D**2
    rest = counter.get_total_flops() - ahead - projections
    return {"projections": projections, "scores": rest, "feed-forward": ahead}


# --8<-- [end:shares]

if __name__ == "__main__":
    # --8<-- [start:sweep]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    D = 128
    share = {}
    for times in (1, 2, 4, 6, 12):
        part = shares(times * D, D)
        share[times] = part["scores"] / sum(part.values())
        print(f"T = {times:2} D: scores are {share[times]:.0%} of the layer")
    assert share[2] < 0.3
    assert abs(share[6] - 0.5) < 0.01  # 4T²D = 24TD² at T = 6D
    # --8<-- [end:sweep]

    # --8<-- [start:models]
    half = {}
    for name, size, wide in (
        ("8B", 4096, 14_336),
        ("70B", 8192, 28_672),
        ("405B", 16_384, 53_248),
    ):
        weights = 2 * size**2 + 2 * size * 8 * 128  # Q and O; K and V of 8 kv heads
        weights += 3 * size * wide  # a gated feed-forward layer has three matrices
        half[name] = weights / (2 * size)  # where 4T²D is 2T · weights
        print(f"Llama 3 {name}: D = {size}, half at T = {half[name]:,.0f} "
              f"= {half[name] / size:.2f} D; causal, half of the pairs: "
              f"{2 * half[name]:,.0f}")  # fmt: skip
        assert 5.9 < half[name] / size < 6.6
    # --8<-- [end:models]
