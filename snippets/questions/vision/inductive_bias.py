"""What convolution knows of images and attention does not: locality and shifts."""

# --8<-- [start:imports]
import torch
from torch import Tensor, nn

# --8<-- [end:imports]
from snippets.foundations.scaled_dot_product import attend


# --8<-- [start:models]
class Convolutions(nn.Module):
    """Two circular 3×3 convolutions and the mean over positions."""

    def __init__(self, stride: int) -> None:
        """Make the layers; the stride is that of the first."""
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, stride, padding=1, padding_mode="circular")
        self.second = nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular")

    def forward(self, image_13XY: Tensor) -> Tensor:
        """Return one vector for the image, (1, 16)."""
        map_1DIJ = self.second(torch.relu(self.first(image_13XY)))
        return torch.relu(map_1DIJ).mean((2, 3))


class Patches(nn.Module):
    """Patches of 8×8, one layer of attention and the mean over patches."""

    def __init__(self, positions: bool) -> None:
        """Make the embedding and, if asked for, a table of positions."""
        super().__init__()
        self.embed = nn.Conv2d(3, 16, kernel_size=8, stride=8)
        self.position_P16 = nn.Parameter(positions * torch.randn(16, 16))

    def forward(self, image_13XY: Tensor) -> Tensor:
        """Return one vector for the image, (1, 16)."""
        x_1PD = self.embed(image_13XY).flatten(2).mT + self.position_P16
        x_11PD = x_1PD.unsqueeze(1)
        return torch.relu(x_1PD + attend(x_11PD, x_11PD, x_11PD)[0]).mean(1)


# --8<-- [end:models]

if __name__ == "__main__":
    # --8<-- [start:shifts]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_default_dtype(torch.float64)
    image_13XY = torch.randn(1, 3, 32, 32)
    order_P = torch.randperm(16)
    patch_1FP = nn.functional.unfold(image_13XY, 8, stride=8)
    changed = {
        "1 pixel": image_13XY.roll(1, 3),
        "2 pixels": image_13XY.roll(2, 3),
        "8 pixels": image_13XY.roll(8, 3),
        "shuffled": nn.functional.fold(patch_1FP[..., order_P], 32, 8, stride=8),
    }
    print(f"{'':24}", *(f"{name:>9}" for name in changed))
    move = {}
    for name, model in {
        "convolutions, stride 1": Convolutions(1),
        "convolutions, stride 2": Convolutions(2),
        "patches, no positions": Patches(False),
        "patches, positions": Patches(True),
    }.items():
        with torch.no_grad():
            plain_1D = model(image_13XY)
            move[name] = [
                ((model(other_13XY) - plain_1D).norm() / plain_1D.norm()).item()
                for other_13XY in changed.values()
            ]
        print(f"{name:24}", *(f"{x:9.3f}" for x in move[name]))
    assert max(move["convolutions, stride 1"][:3]) < 1e-12
    assert move["convolutions, stride 2"][0] > 0.01
    assert max(move["patches, no positions"][2:]) < 1e-12
    assert min(move["patches, positions"]) > 0.05
    torch.set_default_dtype(torch.float32)
    # --8<-- [end:shifts]

    # --8<-- [start:reach]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    image_13XY = torch.randn(1, 3, 32, 32, requires_grad=True)
    convolutions, patches = Convolutions(1), Patches(True)
    map_1DXY = convolutions.second(torch.relu(convolutions.first(image_13XY)))
    token_1PD = patches.embed(image_13XY).flatten(2).mT + patches.position_P16
    token_11PD = token_1PD.unsqueeze(1)
    seen = {
        "two 3×3 convolutions": map_1DXY[0, :, 16, 16],
        "one layer of attention": attend(token_11PD, token_11PD, token_11PD)[0, 0, 5],
    }
    reach = {}
    for name, out_D in seen.items():
        (slope_13XY,) = torch.autograd.grad(out_D.sum(), image_13XY)
        reach[name] = (slope_13XY != 0).any(1).sum().item()
        print(f"{name:22}: one output depends on {reach[name]} of 1024 pixels")
    # --8<-- [end:reach]
