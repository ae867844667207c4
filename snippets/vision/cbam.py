"""CBAM: a gate per channel, then a gate per position."""

# --8<-- [start:imports]
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

# --8<-- [end:imports]


# --8<-- [start:channel-gate]
class ChannelGate(nn.Module):
    """One gate per channel from the mean and the largest value (Woo et al. 2018, §3).

    Raises ValueError when model_size // reduction would be zero.
    """

    def __init__(self, model_size: int, reduction: int = 16) -> None:
        """Make the one network that both descriptors go through."""
        super().__init__()
        if not 1 <= reduction <= model_size:
            raise ValueError(
                f"reduction is {reduction}, model_size is {model_size}: "
                "expected 1 <= reduction <= model_size"
            )
        self.shared = nn.Sequential(
            nn.Linear(model_size, model_size // reduction, bias=False),
            nn.ReLU(),
            nn.Linear(model_size // reduction, model_size, bias=False),
        )

    def forward(self, x_BDXY: Tensor) -> Tensor:
        """Return the gates, (B, D, 1, 1) (eq. 2)."""
        mean_BD = x_BDXY.mean(dim=(2, 3))
        max_BD = x_BDXY.amax(dim=(2, 3))
        logit_BD = self.shared(mean_BD) + self.shared(max_BD)
        return torch.sigmoid(logit_BD)[:, :, None, None]


# --8<-- [end:channel-gate]


# --8<-- [start:spatial-gate]
class SpatialGate(nn.Module):
    """One gate per position from the mean and the largest channel (§3).

    Raises ValueError for an even kernel: it could not be centered on a position.
    """

    def __init__(self, kernel: int = 7) -> None:
        """Make the convolution from two planes to one."""
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel}: expected an odd positive number")
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x_BDXY: Tensor) -> Tensor:
        """Return the gates, (B, 1, X, Y) (eq. 3)."""
        mean_B1XY = x_BDXY.mean(dim=1, keepdim=True)
        max_B1XY = x_BDXY.amax(dim=1, keepdim=True)
        return torch.sigmoid(self.conv(torch.cat([mean_B1XY, max_B1XY], dim=1)))


# --8<-- [end:spatial-gate]


# --8<-- [start:cbam]
class CBAM(nn.Module):
    """Scale channels first, then the positions of what is left (eq. 1).

    Raises ValueError when the map is not (batch, model_size, height, width).
    """

    def __init__(self, model_size: int, reduction: int = 16, kernel: int = 7) -> None:
        """Make the two gates."""
        super().__init__()
        self.model_size = model_size
        self.channel = ChannelGate(model_size, reduction)
        self.spatial = SpatialGate(kernel)

    def forward(self, x_BDXY: Tensor) -> Tensor:
        """Return the scaled map, (B, D, X, Y)."""
        if x_BDXY.ndim != 4 or x_BDXY.shape[1] != self.model_size:
            raise ValueError(
                f"x has shape {tuple(x_BDXY.shape)}: "
                f"expected (batch, {self.model_size}, height, width)"
            )
        channel_BDXY = self.channel(x_BDXY) * x_BDXY
        return self.spatial(channel_BDXY) * channel_BDXY


# --8<-- [end:cbam]


# --8<-- [start:task]
def make_maps(batch: int) -> tuple[Tensor, Tensor]:
    """Return maps (B, 8, 16, 16) and, as target, the object without its surroundings.

    The object is a disc in channels 0 to 3; all eight channels carry noise.
    """
    grid_X = torch.arange(16)
    center_B2 = torch.randint(4, 12, (batch, 2))
    row_BX = (grid_X - center_B2[:, :1]).square()
    column_BX = (grid_X - center_B2[:, 1:]).square()
    disc_BXX = (row_BX[:, :, None] + column_BX[:, None, :] <= 9).float()
    x_BDXX = 0.5 * torch.randn(batch, 8, 16, 16)
    x_BDXX[:, :4] += 2 * disc_BXX[:, None]
    wanted_BDXX = x_BDXX * disc_BXX[:, None]
    wanted_BDXX[:, 4:] = 0
    return x_BDXX, wanted_BDXX


def train(block: nn.Module, steps: int = 300) -> float:
    """Train `block` to keep the object; return the error on fresh maps."""
    optimizer = torch.optim.Adam(block.parameters(), lr=0.02)
    for _ in range(steps):
        x_BDXY, wanted_BDXY = make_maps(16)
        loss = (block(x_BDXY) - wanted_BDXY).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x_BDXY, wanted_BDXY = make_maps(128)
    return (block(x_BDXY) - wanted_BDXY).square().mean().item()


# --8<-- [end:task]


if __name__ == "__main__":
    # --8<-- [start:demo]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    x_BDXY = torch.randn(2, 64, 14, 14)
    block = CBAM(64)
    print("channel gate", tuple(block.channel(x_BDXY).shape))
    print("spatial gate", tuple(block.spatial(x_BDXY).shape))
    for side in (1, 2, 7, 14):
        assert block(x_BDXY[..., :side, :side]).shape == (2, 64, side, side)
    # --8<-- [end:demo]

    # --8<-- [start:cost]
    print(" size  channel gate  spatial gate")
    for size in (64, 256, 1024):
        gates = CBAM(size)
        shared = 2 * gates.channel.shared[0].weight.numel()
        print(f"{size:5d} {shared:13d} {gates.spatial.conv.weight.numel():13d}")
    size, positions = 256, 56 * 56
    channel = 3 * positions * size + 2 * (2 * size**2 // 16)
    spatial = 3 * positions * size + 2 * 49 * positions
    conv = 9 * size**2 * positions
    print(
        f"operations on 256x56x56: channel {channel / 1e6:.1f} M, "
        f"spatial {spatial / 1e6:.1f} M, 3x3 conv {conv / 1e6:.0f} M"
    )
    # --8<-- [end:cost]

    # --8<-- [start:train]
    block = CBAM(8, reduction=1)
    error = train(block)
    x_BDXY, wanted_BDXY = make_maps(128)
    untouched = (x_BDXY - wanted_BDXY).square().mean().item()
    print(f"error of the map itself {untouched:.3f}, after CBAM {error:.3f}")
    channel_BD11 = block.channel(x_BDXY).detach()
    spatial_B1XY = block.spatial(channel_BD11 * x_BDXY).detach()
    print("mean channel gates", [f"{g:.2f}" for g in channel_BD11.mean(0).flatten()])
    # --8<-- [end:train]

    # --8<-- [start:picture]
    out_BDXY = spatial_B1XY * channel_BD11 * x_BDXY
    fig, axes = plt.subplots(1, 3, figsize=(7, 2.6))
    planes = {
        "mean of input": x_BDXY[0].mean(0),
        "spatial gate": spatial_B1XY[0, 0],
        "mean of output": out_BDXY[0].mean(0),
    }
    for ax, title in zip(axes, planes, strict=True):
        drawn = ax.imshow(planes[title].cpu(), cmap="viridis")
        ax.set(title=title, xticks=[], yticks=[])
        fig.colorbar(drawn, ax=ax, shrink=0.7)
    plt.show()
    # --8<-- [end:picture]
