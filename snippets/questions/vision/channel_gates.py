"""Gates of squeeze-and-excitation: what they cost, why they need not sum to 1."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]
from snippets.vision.squeeze_excitation import SqueezeExcitation

if __name__ == "__main__":
    # --8<-- [start:sums]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    print("channels  sum of gates  size kept  with softmax: sum  size kept")
    kept = {}
    for size in (16, 64, 256):
        x_BDXY = torch.randn(8, size, 14, 14)
        gate_BD = SqueezeExcitation(size).gate(x_BDXY)
        share_BD = gate_BD.logit().softmax(dim=1)  # the same numbers, normalized
        kept[size] = [
            ((factor_BD[:, :, None, None] * x_BDXY).norm() / x_BDXY.norm()).item()
            for factor_BD in (gate_BD, share_BD)
        ]
        sums = gate_BD.sum(1).mean().item(), share_BD.sum(1).mean().item()
        print(
            f"{size:8} {sums[0]:13.1f} {kept[size][0]:10.3f}"
            f" {sums[1]:18.1f} {kept[size][1]:10.3f}"
        )
    assert kept[256][1] < 0.01 < 0.45 < min(gated for gated, _ in kept.values())
    # --8<-- [end:sums]

    # --8<-- [start:all-open]
    torch.manual_seed(0)
    logit_D = torch.randn(64)
    for change in (-4, 0, 4):
        gate_D, share_D = (logit_D + change).sigmoid(), (logit_D + change).softmax(0)
        print(
            f"all logits {change:+}: mean gate {gate_D.mean():.2f},"
            f" mean softmax {share_D.mean():.4f}"
        )
        assert share_D.allclose(logit_D.softmax(0))
    # --8<-- [end:all-open]

    # --8<-- [start:resnet]
    stages = {256: (3, 56), 512: (4, 28), 1024: (6, 14), 2048: (3, 7)}
    weights, operations = {}, 0
    for size, (blocks, side) in stages.items():
        weights[size] = blocks * 2 * size**2 // 16
        operations += weights[size] + blocks * 2 * size * side**2  # mean and product
        print(
            f"{size:4} channels, {blocks} blocks: {weights[size] / 1e6:.2f} M weights"
        )
    total = sum(weights.values())
    print(f"all: {total / 1e6:.2f} M weights, last stage {weights[2048] / total:.0%}")
    assert weights[2048] > total / 2
    assert operations < 0.004 * 3.86e9
    print(f"operations: {operations / 1e6:.1f} M of 3860 M: {operations / 3.86e9:.2%}")
    # --8<-- [end:resnet]
