"""Tell nucleus from background in each pixel, with attention in the U-Net and without."""

# --8<-- [start:imports]

import matplotlib.pyplot as plt
import torch
from skimage.filters import gaussian, threshold_otsu
from torch import Tensor, nn
from torch.nn.functional import (
    avg_pool2d,
    interpolate,
    max_pool2d,
    pixel_shuffle,
    pixel_unshuffle,
)

# --8<-- [end:imports]
# isort: split
from snippets.applications.blocks import equal_weights
from snippets.applications.nuclei import (
    COLUMNS,
    PACKAGE,
    load_nuclei,
    random_crops,
    strip,
    tiles,
)
from snippets.applications.races import (
    in_short,
    parted,
    plot_losses,
    race,
    schedule,
    show,
    spread,
    table,
)
from snippets.transformer.multi_head import MultiHeadAttention
from snippets.vision.non_local import NonLocal


# --8<-- [start:middles]
class Axial(nn.Module):
    """Attention along each row, then along each column (Ho et al. 2019, §3)."""

    def __init__(self, model_size: int, heads: int = 2) -> None:
        """Make one attention for each direction."""
        super().__init__()
        self.along_rows = MultiHeadAttention(model_size, heads)
        self.along_columns = MultiHeadAttention(model_size, heads)

    def forward(self, x_BDXY: Tensor) -> Tensor:
        """Return x plus what both attentions bring, (B, D, X, Y)."""
        x_BXYD = x_BDXY.movedim(1, 3)
        B, X = x_BXYD.shape[:2]
        row_BXYD = self.along_rows(x_BXYD.flatten(0, 1)).unflatten(0, (B, X))
        x_BYXD = (x_BXYD + row_BXYD).transpose(1, 2)
        column_BYXD = self.along_columns(x_BYXD.flatten(0, 1)).unflatten(0, (B, -1))
        return (x_BYXD + column_BYXD).permute(0, 3, 2, 1)


class Pointwise(nn.Module):
    """The control: two 1×1 convolutions, each position for itself."""

    def __init__(self, model_size: int, inner_size: int) -> None:
        """Make the two convolutions."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(model_size, inner_size, 1),
            nn.ReLU(),
            nn.Conv2d(inner_size, model_size, 1),
        )

    def forward(self, x_BDXY: Tensor) -> Tensor:
        """Return x plus what the convolutions bring, (B, D, X, Y)."""
        return x_BDXY + self.layers(x_BDXY)


# --8<-- [end:middles]


# --8<-- [start:unet]
def two_convolutions(before: int, after: int) -> nn.Sequential:
    """Return 3×3 convolution and ReLU, twice; the map keeps its size."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(after, after, 3, padding=1),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """A small U-Net (Ronneberger et al. 2015) with a layer of choice at the bottom."""

    def __init__(self, middle: nn.Module, sizes: tuple[int, ...] = (16, 32)) -> None:
        """Take the layer for the smallest map, which has the last of `sizes` channels."""
        super().__init__()
        self.down = nn.ModuleList(map(two_convolutions, (4, *sizes[:-1]), sizes))
        self.middle = middle
        self.up = nn.ModuleList(
            two_convolutions(low + high, high)
            for high, low in zip(sizes[-2::-1], sizes[:0:-1], strict=True)
        )
        self.head = nn.Conv2d(sizes[0], 4, 1)

    def bottom(self, photo_BXY: Tensor) -> list[Tensor]:
        """Return the map of each size, the smallest last."""
        maps_any = [self.down[0](pixel_unshuffle(photo_BXY.unsqueeze(1), 2))]
        for layer in self.down[1:]:
            maps_any.append(layer(max_pool2d(maps_any[-1], 2)))
        return maps_any

    def forward(self, photo_BXY: Tensor) -> Tensor:
        """Return each pixel's score of being a nucleus, (B, X, Y)."""
        *skips_any, low_any = self.bottom(photo_BXY)
        low_any = self.middle(low_any)
        for layer, skip_any in zip(self.up, reversed(skips_any), strict=True):
            low_any = layer(
                torch.cat([interpolate(low_any, scale_factor=2), skip_any], 1)
            )
        return pixel_shuffle(self.head(low_any), 2).squeeze(1)


# --8<-- [end:unet]


# --8<-- [start:train]
def iou_and_dice(found_any: Tensor, truth_any: Tensor) -> tuple[float, float]:
    """Return |A ∩ B| / |A ∪ B| and 2 |A ∩ B| / (|A| + |B|) of two boolean tensors."""
    both = (found_any & truth_any).sum().item()
    either = (found_any | truth_any).sum().item()
    return both / either, 2 * both / (both + either)


def train(
    model: nn.Module, photo_XY: Tensor, mask_XY: Tensor, steps: int
) -> list[float]:
    """Train in place on random crops; return the loss of every step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    losses = []
    for _ in range(steps):
        crop_BXY, number_BXY = random_crops(photo_XY, mask_XY, count=8)
        loss = nn.functional.binary_cross_entropy_with_logits(
            model(crop_BXY), (number_BXY > 0).float()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        losses.append(loss.item())
    return losses


# --8<-- [end:train]


# --8<-- [start:otsu]
def otsu(photo_XY: Tensor, sigma: float) -> Tensor:
    """Return what is brighter than Otsu's threshold after a blur, (X, Y), boolean."""
    smooth_XY = gaussian(photo_XY.cpu().numpy(), sigma)
    return torch.tensor(smooth_XY > threshold_otsu(smooth_XY), device=photo_XY.device)


# --8<-- [end:otsu]


if __name__ == "__main__":
    # --8<-- [start:data]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    plt.rcParams["image.interpolation"] = "none"  # pictures stay small in an SVG
    photo_XX, mask_XX = load_nuclei()
    numbers = {
        part: set(strip(mask_XX, part).unique().tolist()) - {0} for part in COLUMNS
    }
    print(
        f"{tuple(photo_XX.shape)} pixels, {len(mask_XX.unique()) - 1} nuclei, from {PACKAGE}"
    )
    for part, (first, end) in COLUMNS.items():
        share = (strip(mask_XX, part) > 0).float().mean().item()
        print(
            f"{part:10} columns {first}-{end - 1}: {len(numbers[part])} nuclei, {share:.0%}"
        )
    assert len(set.union(*numbers.values())) == sum(map(len, numbers.values()))
    # --8<-- [end:data]

    # --8<-- [start:overview]
    plt.figure(figsize=(2.8, 2.8))
    plt.imshow(
        photo_XX[::6, ::6].cpu().clamp(max=0.6), cmap="gray", extent=(0, 512, 512, 0)
    )
    for part, (first, end) in COLUMNS.items():
        plt.axvspan(first, end, fill=False, edgecolor="tab:orange")
        plt.text(first + 5, 20, part, color="tab:orange", rotation=90, va="top")
    plt.show()
    # --8<-- [end:overview]

    # --8<-- [start:baseline]
    scores = {}
    for sigma in (0, 1, 2):
        bright_any = otsu(strip(photo_XX, "validation"), sigma)
        truth_any = strip(mask_XX, "validation") > 0
        scores[sigma] = iou_and_dice(bright_any, truth_any)[0]
        print(f"blur of {sigma} pixels, validation: IoU {scores[sigma]:.3f}")
    sigma = max(scores, key=scores.get)
    bright_XY = otsu(strip(photo_XX, "test"), sigma)
    plain = iou_and_dice(bright_XY, strip(mask_XX, "test") > 0)
    print(f"blur of {sigma}, test: IoU {plain[0]:.3f}, Dice {plain[1]:.3f}")
    # --8<-- [end:baseline]

    # --8<-- [start:compare]
    mean, deviation = strip(photo_XX, "train").mean(), strip(photo_XX, "train").std()
    scaled_XX = (photo_XX - mean) / deviation
    view_BCC = tiles(strip(scaled_XX, "test"))
    truth_BCC = tiles(strip(mask_XX, "test")) > 0
    results = race(
        {
            "pointwise": lambda: UNet(Pointwise(32, 129)),
            "non-local": lambda: UNet(NonLocal(32, 64)),
            "axial": lambda: UNet(Axial(32)),
        },
        lambda model: train(
            model,
            strip(scaled_XX, "train"),
            strip(mask_XX, "train"),
            schedule(250, 2000),
        ),
        lambda model: iou_and_dice(model(view_BCC) > 0, truth_BCC)[0],
    )
    table(results, "IoU")
    in_short(results["pointwise"], results["non-local"], plain[0], of="nonlocal")
    in_short(results["pointwise"], results["axial"], plain[0], of="axial")
    means = {name: spread(runs.scores)[0] for name, runs in results.items()}
    assert max(means.values()) - min(means.values()) < 0.02
    assert min(means.values()) > plain[0] + 0.02
    # --8<-- [end:compare]

    # --8<-- [start:parted]
    control = results["pointwise"].scores
    for name in ("non-local", "axial"):
        scores = results[name].scores
        apart = parted(scores, control) or parted(control, scores)
        gain = means[name] - means["pointwise"]
        print(f"{name}: {gain:+.3f} IoU, intervals part: {apart}")
    # --8<-- [end:parted]

    # --8<-- [start:losses]
    plot_losses(results)
    # --8<-- [end:losses]

    # --8<-- [start:picture]
    model = results["non-local"].models[0]
    with torch.no_grad():
        found_BCC = model(view_BCC) > 0
    print("Dice of this run:", round(iou_and_dice(found_BCC, truth_BCC)[1], 3))
    _, axes = plt.subplots(1, 4, figsize=(7, 2))
    for ax, (title, drawn_any) in zip(
        axes,
        {
            "photo": strip(photo_XX, "test")[:128].clamp(max=0.6),
            "truth": strip(mask_XX, "test")[:128] > 0,
            "U-Net": found_BCC[:4]
            .unflatten(0, (2, 2))
            .transpose(1, 2)
            .reshape(128, 128),
            "Otsu": bright_XY[:128],
        }.items(),
        strict=True,
    ):
        ax.imshow(drawn_any.cpu(), cmap="gray")
        ax.set(title=title, xticks=[], yticks=[])
    plt.show()
    # --8<-- [end:picture]

    # --8<-- [start:shares]
    inside_BS = avg_pool2d(truth_BCC.float(), 4).flatten(1) > 0.5
    print(
        f"{inside_BS.float().mean():.0%} of the positions lie in nuclei; their weight"
    )
    shares = []
    for seed, model in enumerate(results["non-local"].models):
        with torch.no_grad():
            weight_BTS = model.middle.weight(model.bottom(view_BCC)[-1])
        share_BT = (weight_BTS * inside_BS.unsqueeze(1)).sum(-1)
        there, outside = share_BT[inside_BS].mean(), share_BT[~inside_BS].mean()
        print(f"seed {seed}: {there:.0%} for queries in nuclei, {outside:.0%} outside")
        shares.append(outside.item())
    assert max(shares) - min(shares) > 0.1
    # --8<-- [end:shares]

    # --8<-- [start:weights]
    model = results["non-local"].models[0]
    with torch.no_grad():
        weight_BTS = model.middle.weight(model.bottom(view_BCC)[-1])
    _, axes = plt.subplots(1, 3, figsize=(7, 2.5))
    axes[0].imshow(view_BCC[0].cpu().clamp(max=3), cmap="gray")
    for ax, (row, column) in zip(axes[1:], ((4, 13), (8, 4)), strict=True):
        weight_S = weight_BTS[0, row * 16 + column]
        ax.imshow(weight_S.unflatten(0, (16, 16)).cpu(), cmap="viridis")
        ax.plot(column, row, "r+")
        ax.set(title=f"largest {weight_S.max():.3f}", xticks=[], yticks=[])
        axes[0].plot(4 * column + 1.5, 4 * row + 1.5, "r+")
    axes[0].set(title="photo", xticks=[], yticks=[])
    plt.show()
    # --8<-- [end:weights]

    # --8<-- [start:without]
    with torch.no_grad():
        for name, scorer in (("non-local", "theta"), ("axial", "to_q")):
            leveled = [equal_weights(m, scorer) for m in results[name].models]
            equal = [iou_and_dice(m(view_BCC) > 0, truth_BCC)[0] for m in leveled]
            assert min(equal) > plain[0]
            print(f"{name}: learned {show(results[name].scores)}, equal {show(equal)}")
    # --8<-- [end:without]
