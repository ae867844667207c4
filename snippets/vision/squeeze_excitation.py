"""Squeeze and excitation: one gate per channel, computed from the whole map."""

# --8<-- [start:imports]
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

# --8<-- [end:imports]


# --8<-- [start:squeeze-excitation]
class SqueezeExcitation(nn.Module):
    """Scale each channel of a map by a gate in (0, 1) (Hu et al. 2017, §3).

    The hidden layer has model_size // reduction units. Raises ValueError when that
    would leave none, or when the map is not (batch, model_size, height, width).
    """

    def __init__(self, model_size: int, reduction: int = 16) -> None:
        """Make the two layers of the gate, with biases."""
        super().__init__()
        if not 1 <= reduction <= model_size:
            raise ValueError(
                f"reduction is {reduction}, model_size is {model_size}: "
                "expected 1 <= reduction <= model_size"
            )
        self.model_size = model_size
        self.narrow = nn.Linear(model_size, model_size // reduction)
        self.widen = nn.Linear(model_size // reduction, model_size)

    def gate(self, x_BDXY: Tensor) -> Tensor:
        """Return one gate per image and channel, (B, D) (eq. 2 and 3)."""
        if x_BDXY.ndim != 4 or x_BDXY.shape[1] != self.model_size:
            raise ValueError(
                f"x has shape {tuple(x_BDXY.shape)}: "
                f"expected (batch, {self.model_size}, height, width)"
            )
        squeezed_BD = x_BDXY.mean(dim=(2, 3))
        hidden_BR = torch.relu(self.narrow(squeezed_BD))
        return torch.sigmoid(self.widen(hidden_BR))

    def forward(self, x_BDXY: Tensor) -> Tensor:
        """Return the scaled map, (B, D, X, Y) (eq. 4)."""
        return self.gate(x_BDXY)[:, :, None, None] * x_BDXY


# --8<-- [end:squeeze-excitation]


# --8<-- [start:task]
KEEP = ((0, 1), (2,))  # channels to keep in an image of kind 0, of kind 1


def make_maps(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return maps (B, 8, 6, 6), the maps wanted and the kind of each image (B,).

    All channels are noise; the mean of channel 6 + kind tells the kind of the image.
    """
    kind_B = torch.randint(2, (batch,))
    x_BDXY = torch.randn(batch, 8, 6, 6)
    x_BDXY[torch.arange(batch), 6 + kind_B] += 2
    wanted_BDXY = torch.zeros_like(x_BDXY)
    for kind, channels in enumerate(KEEP):
        for channel in channels:
            wanted_BDXY[kind_B == kind, channel] = x_BDXY[kind_B == kind, channel]
    return x_BDXY, wanted_BDXY, kind_B


def train(block: nn.Module, steps: int = 400) -> float:
    """Train `block` to keep the right channels; return the error on fresh maps."""
    optimizer = torch.optim.Adam(block.parameters(), lr=0.02)
    for _ in range(steps):
        x_BDXY, wanted_BDXY, _ = make_maps(64)
        loss = (block(x_BDXY) - wanted_BDXY).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x_BDXY, wanted_BDXY, _ = make_maps(512)
    return (block(x_BDXY) - wanted_BDXY).square().mean().item()


# --8<-- [end:task]


if __name__ == "__main__":
    # --8<-- [start:demo]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    x_BDXY = torch.randn(2, 64, 14, 14)
    block = SqueezeExcitation(64)
    gate_BD = block.gate(x_BDXY)
    print("map", tuple(x_BDXY.shape), "gates", tuple(gate_BD.shape))
    print(f"smallest {gate_BD.min():.2f}, largest {gate_BD.max():.2f}")
    print("sums of the 64 gates:", [f"{total:.1f}" for total in gate_BD.sum(1)])
    # --8<-- [end:demo]

    # --8<-- [start:cost]
    print(" size  weights  2*D*D/r  of one 3x3 convolution")
    for size in (64, 256, 1024):
        layers = SqueezeExcitation(size)
        weights = layers.narrow.weight.numel() + layers.widen.weight.numel()
        formula = 2 * size**2 // 16
        print(f"{size:5d} {weights:8d} {formula:8d}  {weights / (9 * size**2):.1%}")
    blocks = {256: 3, 512: 4, 1024: 6, 2048: 3}  # output channels in ResNet-50
    extra = sum(2 * size**2 // 16 * count for size, count in blocks.items())
    print(
        f"in the {sum(blocks.values())} blocks of ResNet-50: {extra / 1e6:.2f} M weights"
    )
    size, positions = 256, 56 * 56
    se, conv = 2 * positions * size + 2 * size**2 // 16, 9 * size**2 * positions
    print(f"operations on 256x56x56: SE {se / 1e6:.1f} M, 3x3 conv {conv / 1e6:.0f} M")
    # --8<-- [end:cost]

    # --8<-- [start:train]
    block = SqueezeExcitation(8, reduction=1)
    print(f"error after training {train(block):.0e}")
    x_BDXY, wanted_BDXY, kind_B = make_maps(512)
    gate_BD = block.gate(x_BDXY).detach()
    mean_2D = torch.stack([gate_BD[kind_B == kind].mean(0) for kind in (0, 1)])
    print("mean sum of gates:", [f"{total:.2f}" for total in mean_2D.sum(1)])
    # --8<-- [end:train]

    # --8<-- [start:picture]
    fig, ax = plt.subplots(figsize=(6, 2.6))
    for kind, color in ((0, "tab:blue"), (1, "tab:orange")):
        place = [channel + 0.4 * kind - 0.2 for channel in range(8)]
        ax.bar(place, mean_2D[kind].cpu(), 0.4, color=color, label=f"kind {kind}")
    ax.set(xlabel="channel", ylabel="mean gate", ylim=(0, 1.1), xticks=range(8))
    ax.legend(ncols=2, loc="upper right")
    plt.show()
    # --8<-- [end:picture]
