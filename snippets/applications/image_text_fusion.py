"""Ask in words for one of four handwritten digits; three ways to join text and image."""

# --8<-- [start:imports]

import matplotlib.pyplot as plt
from torch.nn.functional import cross_entropy

# --8<-- [end:imports]
# isort: split
import torch
from torch import Tensor, nn

from snippets.applications.blocks import equal_weights
from snippets.applications.digits import DIGITS_PACKAGE, read_digits
from snippets.applications.races import (
    in_short,
    plot_losses,
    race,
    schedule,
    spread,
    table,
)
from snippets.multimodal.cross_modal import CrossModalAttention

# --8<-- [start:task]
QUESTIONS = [
    f"which digit is {y} {x}" for y in ("top", "bottom") for x in ("left", "right")
]
QUESTIONS += [f"{x} {y} 是 几" for y in "上下" for x in "左右"]
WORDS = ["<pad>", *sorted({word for q in QUESTIONS for word in q.split()})]


def encode(questions: list[str]) -> Tensor:
    """Return one row of word numbers per question, padded with 0 to 5 words."""
    rows = [[WORDS.index(word) for word in q.split()] for q in questions]
    return torch.tensor([row + [0] * (5 - len(row)) for row in rows])


def mosaic(digit_B4XY: Tensor) -> Tensor:
    """Lay four digits out as top left, top right, bottom left, bottom right."""
    return digit_B4XY.unflatten(1, (2, 2)).transpose(2, 3).flatten(3).flatten(1, 2)


def patches(mosaic_BXY: Tensor) -> Tensor:
    """Cut (B, 56, 56) into 16 patches of 14 × 14 pixels, row by row: (B, 16, 196)."""
    return mosaic_BXY.unfold(1, 14, 14).unfold(2, 14, 14).flatten(3).flatten(1, 2)


def draw(digit_NXY: Tensor, label_N: Tensor, B: int, generator: torch.Generator):
    """Draw B mosaics (B, 56, 56), questions (B), encoded (B, 5), and answers (B)."""
    device = generator.device
    pick_B4 = torch.randint(len(label_N), (B, 4), generator=generator, device=device)
    ask_B = torch.randint(len(QUESTIONS), (B,), generator=generator, device=device)
    answer_B = label_N[pick_B4].gather(1, (ask_B % 4).unsqueeze(1)).squeeze(1)
    return mosaic(digit_NXY[pick_B4]), ask_B, encode(QUESTIONS)[ask_B], answer_B


# --8<-- [end:task]


# --8<-- [start:fusions]
def head(size: int, hidden: int) -> nn.Module:
    """Make the part that turns one vector into scores of the ten digits."""
    layers = nn.LayerNorm(size), nn.Linear(size, hidden), nn.ReLU()
    return nn.Sequential(*layers, nn.Linear(hidden, 10))


def mean_words(text_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Average the words of each question, without the padding."""
    kept_BTD = text_BTD.masked_fill(~mask_BT.unsqueeze(2), 0.0)
    return kept_BTD.sum(1) / mask_BT.sum(1, keepdim=True)


class CrossFusion(nn.Module):
    """The words read the patches by cross-modal attention."""

    def __init__(self):
        """Make a table of places, the attention and the head."""
        super().__init__()
        self.place_SI = nn.Parameter(torch.randn(16, 48) * 0.3)
        self.cross = CrossModalAttention(x_size=64, y_size=48, model_size=64, heads=2)
        self.head = head(64, 128)

    def forward(self, text_BTD, image_BSI, mask_BT, seen_BS=None) -> Tensor:
        """Return scores (B, 10); patches outside `seen_BS` are hidden."""
        image_BSI = image_BSI + self.place_SI
        read_BTD = self.cross(text_BTD, image_BSI, mask_BT, seen_BS)
        return self.head(mean_words(read_BTD, mask_BT))

    def reading(self, text_BTD, image_BSI, mask_BT) -> Tensor:
        """Return the weights (B, 16), averaged over heads and words."""
        image_BSI = image_BSI + self.place_SI
        weight_BHTS = self.cross.weights(text_BTD, image_BSI, mask_BT)
        return mean_words(weight_BHTS.mean(1), mask_BT)


class MeanFusion(nn.Module):
    """The mean of all patches beside the mean of the words."""

    def __init__(self):
        """Make a table of places and the head."""
        super().__init__()
        self.place_SI = nn.Parameter(torch.randn(16, 48) * 0.3)
        self.head = head(48 + 64, 192)

    def forward(self, text_BTD, image_BSI, mask_BT) -> Tensor:
        """Return scores (B, 10)."""
        image_BI = (image_BSI + self.place_SI).relu().mean(1)
        return self.head(torch.cat((image_BI, mean_words(text_BTD, mask_BT)), 1))


class FlatFusion(nn.Module):
    """All 16 patches in one long vector beside the mean of the words."""

    def __init__(self):
        """Make the head."""
        super().__init__()
        self.head = head(16 * 48 + 64, 27)

    def forward(self, text_BTD, image_BSI, mask_BT) -> Tensor:
        """Return scores (B, 10)."""
        words_BD = mean_words(text_BTD, mask_BT)
        return self.head(torch.cat((image_BSI.flatten(1), words_BD), 1))


# --8<-- [end:fusions]


# --8<-- [start:reader]
class Reader(nn.Module):
    """Encode patches and words apart, then let `fusion` answer."""

    def __init__(self, fusion: nn.Module):
        """Make the encoders, the same for every fusion."""
        super().__init__()
        self.see = nn.Sequential(nn.Linear(196, 64), nn.ReLU(), nn.Linear(64, 48))
        self.word = nn.Embedding(len(WORDS), 64)
        self.fusion = fusion

    def encode(self, mosaic_BXY, word_BT) -> tuple[Tensor, Tensor, Tensor]:
        """Return words (B, T, 64), patches (B, 16, 48) and the mask of the words."""
        mask_BT = word_BT > 0
        text_BTD = self.word(word_BT)
        # Each word also carries the whole question: "top" alone names two digits.
        text_BTD = text_BTD + mean_words(text_BTD, mask_BT).unsqueeze(1)
        return text_BTD, self.see(patches(mosaic_BXY)), mask_BT

    def forward(self, mosaic_BXY, word_BT, **options) -> Tensor:
        """Return scores (B, 10)."""
        return self.fusion(*self.encode(mosaic_BXY, word_BT), **options)


def train(reader: Reader, digit_NXY, label_N, steps: int = 400) -> list[float]:
    """Train in place on fresh mosaics; return the loss of every step."""
    generator = torch.Generator(device=label_N.device).manual_seed(torch.initial_seed())
    adam = torch.optim.AdamW(reader.parameters(), lr=5e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 5e-3, total_steps=steps)
    losses = []
    for _ in range(steps):
        mosaic_BXY, _, word_BT, answer_B = draw(digit_NXY, label_N, 192, generator)
        loss = cross_entropy(reader(mosaic_BXY, word_BT), answer_B)
        adam.zero_grad()
        loss.backward()
        adam.step()
        rate.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def right(reader: Reader, mosaic_BXY, word_BT, answer_B, **options) -> Tensor:
    """Return 1.0 for each right answer and 0.0 for each wrong one: (B)."""
    return (reader(mosaic_BXY, word_BT, **options).argmax(1) == answer_B).float()


# --8<-- [end:reader]


if __name__ == "__main__":
    # --8<-- [start:data]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    digit_NXY, label_N = read_digits()
    learn = digit_NXY[:4000], label_N[:4000]
    test = digit_NXY[4000:], label_N[4000:]
    generator = torch.Generator(device=label_N.device).manual_seed(99)
    mosaic_BXY, ask_B, word_BT, answer_B = draw(*test, 2000, generator)
    print(f"{DIGITS_PACKAGE}: BSD 3-Clause, Sebastian Raschka; digits from MNIST")
    print("digits to learn from:", len(learn[1]), " to test on:", len(test[1]))
    # --8<-- [end:data]

    # --8<-- [start:result]
    steps = schedule(cpu=400, gpu=4000)
    results = race(
        {
            "mean": lambda: Reader(MeanFusion()),
            "flat": lambda: Reader(FlatFusion()),
            "cross": lambda: Reader(CrossFusion()),
        },
        train=lambda reader: train(reader, *learn, steps),
        score=lambda reader: right(reader, mosaic_BXY, word_BT, answer_B).mean(),
    )
    table(results, "accuracy")
    in_short(results["mean"], results["cross"])
    scores = {name: spread(runs.scores)[0] for name, runs in results.items()}
    assert min(scores["cross"], scores["flat"]) > 2 * scores["mean"]
    # --8<-- [end:result]

    # --8<-- [start:losses]
    plot_losses(results)
    # --8<-- [end:losses]

    # --8<-- [start:weights-figure]
    reader = results["cross"].models[0]
    one_BXY = mosaic_BXY[:1].expand(4, -1, -1)
    with torch.no_grad():
        read_BS = reader.fusion.reading(*reader.encode(one_BXY, encode(QUESTIONS[:4])))
    _, axes = plt.subplots(1, 5)
    axes[0].imshow(mosaic_BXY[0].cpu().numpy(), cmap="magma")
    axes[0].set_title("picture")
    for axis, question, weights in zip(
        axes[1:], QUESTIONS, read_BS.unflatten(1, (4, 4)).tolist(), strict=False
    ):
        axis.imshow(weights, cmap="viridis", vmin=0, vmax=0.5)
        axis.set_title(question.removeprefix("which digit is ").replace(" ", "\n"))
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    plt.show()
    # --8<-- [end:weights-figure]

    # --8<-- [start:mass]
    with torch.no_grad():
        read_BS = reader.fusion.reading(*reader.encode(mosaic_BXY, word_BT))
    corner_S = torch.arange(16) // 8 * 2 + torch.arange(16) % 4 // 2
    asked_BS = corner_S == (ask_B % 4).unsqueeze(1)
    mass_B = (read_BS * asked_BS).sum(1)
    right_B = right(reader, mosaic_BXY, word_BT, answer_B)
    print(f"weight on the asked corner: {mass_B.mean():.3f} (uniform: 0.250)")
    print(f"  where the answer is right: {mass_B[right_B == 1].mean():.3f}")
    print(f"  where it is wrong:         {mass_B[right_B == 0].mean():.3f}")
    # --8<-- [end:mass]

    # --8<-- [start:interventions]
    uniform = equal_weights(reader, "to_query")
    pairs = mosaic_BXY, word_BT, answer_B
    for name, result_B in (
        ("all patches", right_B),
        ("  asked in English", right_B[ask_B < 4]),
        ("  asked in Chinese", right_B[ask_B >= 4]),
        ("only the asked corner", right(reader, *pairs, seen_BS=asked_BS)),
        ("all but the asked corner", right(reader, *pairs, seen_BS=~asked_BS)),
        ("no patch at all", right(reader, *pairs, seen_BS=asked_BS & False)),
        ("uniform weights", right(uniform, *pairs)),
    ):
        print(f"{name:25} {result_B.mean():.3f}")
    # --8<-- [end:interventions]
