"""Ten digits from few images: gates on a small CNN, attention between patches."""

# --8<-- [start:imports]
from collections.abc import Callable
from copy import deepcopy

import matplotlib.pyplot as plt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

# --8<-- [end:imports]
# isort: split
from snippets.applications.blocks import Block, UniformMixing, equal_weights, weights_of
from snippets.applications.digits import DIGITS_PACKAGE, read_digits
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
from snippets.properties.cost import count_flops
from snippets.transformer.multi_head import MultiHeadAttention
from snippets.vision.cbam import CBAM
from snippets.vision.squeeze_excitation import SqueezeExcitation


# --8<-- [start:cnn]
class SmallCNN(nn.Module):
    """Three convolutions, a gate after each, the mean over all positions, ten scores."""

    def __init__(
        self, last: int, gate: Callable[[int], nn.Module] = lambda size: nn.Identity()
    ) -> None:
        """Make 16, 32 and `last` channels; `gate` makes what follows a convolution."""
        super().__init__()
        stages = []
        for before, size, stride in ((1, 16, 2), (16, 32, 2), (32, last, 1)):
            convolve = nn.Conv2d(before, size, 3, stride, padding=1)
            stages += [convolve, nn.BatchNorm2d(size), nn.ReLU(), gate(size)]
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(last, 10)

    def forward(self, image_BXY: Tensor) -> Tensor:
        """Return scores (B, 10)."""
        map_BDP = self.stages(image_BXY.unsqueeze(1)).flatten(2)
        return self.head(map_BDP.mean(2))


# --8<-- [end:cnn]


# --8<-- [start:vit]
class SmallViT(nn.Module):
    """A class token reads 49 patches of 4 × 4 pixels (Dosovitskiy et al. 2020, §3.1)."""

    def __init__(self, size: int, mixer: type[nn.Module] = MultiHeadAttention) -> None:
        """Make the embedding of patches, the table of places, two blocks and the head."""
        super().__init__()
        self.embed = nn.Linear(16, size)
        self.place_TD = nn.Parameter(torch.randn(50, size) * 0.3)
        self.class_D = nn.Parameter(torch.zeros(size))
        self.blocks = nn.ModuleList(Block(size, 4, mixer=mixer) for _ in range(2))
        self.head = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, 10))

    def tokens(self, image_BXY: Tensor) -> Tensor:
        """Return the class token and the patches, row by row: (B, 50, D)."""
        patches_any = image_BXY.unfold(1, 4, 4).unfold(2, 4, 4).flatten(3)
        x_BPD = self.embed(patches_any.flatten(1, 2))
        class_B1D = self.class_D.expand(len(x_BPD), 1, -1)
        return torch.cat((class_B1D, x_BPD), 1) + self.place_TD

    def forward(self, image_BXY: Tensor) -> Tensor:
        """Return scores (B, 10)."""
        x_BTD = self.tokens(image_BXY)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.head(x_BTD[:, 0])


# --8<-- [end:vit]


# --8<-- [start:contestants]
MAKERS = {
    "CNN": lambda: SmallCNN(38),
    "CNN + SE": lambda: SmallCNN(34, lambda size: SqueezeExcitation(size, 4)),
    "CNN + CBAM": lambda: SmallCNN(33, lambda size: CBAM(size, 4)),
    "ViT": lambda: SmallViT(24),
    "ViT, uniform": lambda: SmallViT(26, UniformMixing),
}
RATES = {SmallCNN: 0.04, SmallViT: 0.005}  # the best on the validation part
# --8<-- [end:contestants]


# --8<-- [start:train]
def train(model: nn.Module, digit_NXY: Tensor, label_N: Tensor, epochs: int) -> list:
    """Train in place in batches of 50; return the loss of every step."""
    steps = epochs * (len(label_N) // 50)
    adam = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    pace = torch.optim.lr_scheduler.OneCycleLR(
        adam, RATES[type(model)], total_steps=steps
    )
    losses = []
    for _ in range(epochs):
        for pick_B in torch.randperm(len(label_N)).split(50):
            loss = cross_entropy(model(digit_NXY[pick_B]), label_N[pick_B])
            adam.zero_grad()
            loss.backward()
            adam.step()
            pace.step()
            losses.append(loss.item())
    return losses


def accuracy(model: nn.Module, digit_NXY: Tensor, label_N: Tensor) -> float:
    """Return the share of right answers."""
    return (model(digit_NXY).argmax(1) == label_N).float().mean().item()


# --8<-- [end:train]


# --8<-- [start:leveled]
def mean_gate(module: nn.Module, _: tuple, gate_any: Tensor) -> Tensor:
    """Forward hook: give every image the mean gate of all images."""
    return gate_any.mean(0, keepdim=True).expand_as(gate_any)


def leveled(model: nn.Module) -> nn.Module:
    """Return a copy whose gates or weights no longer depend on the image."""
    if isinstance(model, SmallViT):
        return equal_weights(model, "to_q")
    copy = deepcopy(model)
    for module in copy.modules():
        if isinstance(module, SqueezeExcitation):
            module.widen.register_forward_hook(mean_gate)  # before the sigmoid
        elif isinstance(module, CBAM):
            module.channel.register_forward_hook(mean_gate)
            module.spatial.register_forward_hook(mean_gate)
    return copy


# --8<-- [end:leveled]


# --8<-- [start:planes]
@torch.no_grad()
def class_weights(vit: SmallViT, image_BXY: Tensor) -> Tensor:
    """Return the class token's weights in the last block, mean of the heads: (B, 50)."""
    *before, last = vit.blocks
    x_BTD = nn.Sequential(*before)(vit.tokens(image_BXY))
    return weights_of(last.mix, last.norm(x_BTD)).mean(1)[:, 0]


@torch.no_grad()
def spatial_gates(cnn: SmallCNN, image_BXY: Tensor) -> Tensor:
    """Return the gates of the 14 × 14 positions after the first convolution: (B, P)."""
    cbam = cnn.stages[3]
    map_any = cnn.stages[:3](image_BXY.unsqueeze(1))
    return cbam.spatial(cbam.channel(map_any) * map_any).flatten(1)


# --8<-- [end:planes]


if __name__ == "__main__":
    # --8<-- [start:data]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    digit_NXY, label_N = read_digits()
    assert len(digit_NXY.flatten(1).unique(dim=0)) == len(digit_NXY)  # no copies
    learn, validation, test = slice(2000), slice(2000, 3000), slice(3000, 5000)
    print(f"{DIGITS_PACKAGE}: BSD 3-Clause, Sebastian Raschka; digits from MNIST")
    print(
        "to train, tune, test on:", [len(label_N[p]) for p in (learn, validation, test)]
    )
    # --8<-- [end:data]

    # --8<-- [start:look]
    _, axes = plt.subplots(1, 8, figsize=(7, 1.3))
    for axis, image_XY, label in zip(axes, digit_NXY, label_N.tolist(), strict=False):
        axis.imshow(image_XY.cpu(), cmap="gray_r")
        axis.set(xticks=[], yticks=[], title=label)
    plt.show()
    # --8<-- [end:look]

    # --8<-- [start:baselines]
    pixel_ND, answer_N = digit_NXY.flatten(1).cpu(), label_N.cpu()
    for plain in (
        LogisticRegression(C=0.02, max_iter=300),
        KNeighborsClassifier(1),
        SVC(C=10),
    ):
        plain.fit(pixel_ND[learn], answer_N[learn])
        right = plain.score(pixel_ND[test], answer_N[test])
        print(f"{type(plain).__name__:20} {right:.3f}")  # the last is the best
    # --8<-- [end:baselines]

    # --8<-- [start:race]
    epochs = schedule(6, 12)
    results = race(
        MAKERS,
        lambda model: train(model, digit_NXY[learn], label_N[learn], epochs),
        lambda model: accuracy(model, digit_NXY[test], label_N[test]),
    )
    table(results, "accuracy")
    for of, pair in {
        "vit": ("ViT, uniform", "ViT"),
        "se": ("CNN", "CNN + SE"),
        "cbam": ("CNN", "CNN + CBAM"),
    }.items():
        in_short(*(results[name] for name in pair), right, of=of)
    counts = [runs.parameters for runs in results.values()]
    assert max(counts) < 1.02 * min(counts)
    # --8<-- [end:race]

    # --8<-- [start:losses]
    plot_losses(results)
    # --8<-- [end:losses]

    # --8<-- [start:claims]
    score = {name: runs.scores for name, runs in results.items()}
    for gated in ("CNN + SE", "CNN + CBAM"):
        gain = spread(score[gated])[0] - spread(score["CNN"])[0]
        print(f"{gated} gains {gain:+.3f}")
        assert gain < 0.01
    assert parted(score["CNN"], score["ViT"])
    assert parted(score["ViT"], score["ViT, uniform"])
    for name, runs in results.items():
        flops = count_flops(lambda model=runs.models[0]: model(digit_NXY[:1]))
        print(f"{name:12} {flops / 1e6:.2f} million operations an image")
    # --8<-- [end:claims]

    # --8<-- [start:figure]
    shown_BXY = digit_NXY[test][:5]
    vit, cbam = (results[name].models[0] for name in ("ViT", "CNN + CBAM"))
    rows = {
        "image": shown_BXY.flatten(1),
        "ViT": class_weights(vit, shown_BXY)[:, 1:],
        "CBAM": spatial_gates(cbam, shown_BXY),
    }
    _, axes = plt.subplots(3, 5, figsize=(5, 3))
    for line, (name, planes_any) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name)
        for axis, plane_any in zip(line, planes_any.cpu(), strict=True):
            side = int(len(plane_any) ** 0.5)
            axis.imshow(plane_any.view(side, side), vmin=0)
            axis.set(xticks=[], yticks=[])
    plt.show()
    # --8<-- [end:figure]

    # --8<-- [start:level]
    level = {}
    for name in ("CNN + SE", "CNN + CBAM", "ViT"):
        with torch.no_grad():
            level[name] = [
                accuracy(leveled(model), digit_NXY[test], label_N[test])
                for model in results[name].models
            ]
        print(f"{name:10} trained {show(score[name])}, leveled {show(level[name])}")
    assert parted(score["CNN + CBAM"], level["CNN + CBAM"])
    assert parted(score["ViT"], level["ViT"])
    # --8<-- [end:level]
