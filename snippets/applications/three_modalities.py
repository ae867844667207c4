"""Tell a digit from what is seen, read and heard, whichever of the three is there."""

# --8<-- [start:imports]
import ctypes
from itertools import compress, product

import matplotlib.pyplot as plt
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

# --8<-- [end:imports]
# isort: split
from snippets.applications.blocks import Block, equal_weights, weights_of
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

# --8<-- [start:speaker]
SPEECH_PACKAGE = "espeakng-loader==0.2.4"
SPEECH_DIGEST = "b15ce0803b26254e8a0d088c6b9281a2637b2b02613147cc320cfdefaf2c3ccf"
Listener = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Speaker:
    """The library eSpeak NG, called without its package: text in, samples out."""

    def __init__(self) -> None:
        """Load the library; raises what `package_file` raises, or OSError."""
        path = package_file(SPEECH_PACKAGE, "libespeak-ng.so", SPEECH_DIGEST)
        self.library = ctypes.CDLL(str(path))
        # 2: hand the samples over and return when done; 0x8000: on errors do not exit.
        folder = str(path.parent).encode()
        self.rate = self.library.espeak_Initialize(2, 0, folder, 0x8000)
        if self.rate <= 0:
            raise OSError(f"eSpeak NG does not start in {path.parent}")
        self.samples: list[int] = []
        self.listener = Listener(self.listen)  # kept: the library holds no reference

    def listen(self, start, count: int, events) -> int:
        """Keep the samples that the library hands over; 0 asks for more."""
        if start:
            self.samples += start[:count]
        return 0

    def say(self, text: str, voice: str, speed: int, pitch: int) -> Tensor:
        """Return the samples (T) of a text; speed in words a minute, pitch 0 to 100.

        The library keeps a state: the same call again differs a little. Raises
        ValueError for an unknown voice.
        """
        if self.library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"voice is {voice}, which eSpeak NG does not have")
        self.library.espeak_SetSynthCallback(self.listener)
        self.library.espeak_SetParameter(1, speed, 0)
        self.library.espeak_SetParameter(3, pitch, 0)
        self.samples, data = [], text.encode()
        size = ctypes.c_size_t(len(data) + 1)
        self.library.espeak_Synth(data, size, 0, 1, 0, 1, None, None)  # in UTF-8
        return torch.tensor(self.samples) / 32768


# --8<-- [end:speaker]


# --8<-- [start:words]
WORDS = ["零一二三四五六七八九"]
WORDS += ["zero one two three four five six seven eight nine".split()]
LETTERS = sorted({letter for words in WORDS for word in words for letter in word})


def spell() -> Tensor:
    """Return the 20 words as (2, 10, 5) numbers of letters from 1 up; 0 is padding."""
    word_any = torch.zeros(20, 5, dtype=torch.long)
    for row, word in enumerate(word for words in WORDS for word in words):
        for place, letter in enumerate(word):
            word_any[row, place] = 1 + LETTERS.index(letter)
    return word_any.unflatten(0, (2, 10))


def band_powers(wave_T: Tensor) -> Tensor:
    """Return the power every 35 ms in 32 bands up to 8.3 kHz: (frames, 32), mean 1."""
    window_C = torch.hann_window(1024)
    bin_RS = torch.stft(wave_T, 1024, 768, window=window_C, return_complex=True).abs()
    power_SD = bin_RS[1:385].square().T.unflatten(1, (32, 12)).mean(2)
    return power_SD / power_SD.mean()


def speak(variants: list[str], speeds: list[int], pitches: list[int]):
    """Return all ways of saying each digit (10, N, S, 32) and their lengths (10, N)."""
    speaker, powers_any = Speaker(), []
    for digit, (voice, words), variant, speed, pitch in product(
        range(10), zip(("cmn", "en-us"), WORDS, strict=True), variants, speeds, pitches
    ):
        wave_T = speaker.say(words[digit], f"{voice}+{variant}", speed, pitch)
        powers_any.append(band_powers(wave_T))
    size_N = torch.tensor([len(power_SD) for power_SD in powers_any])
    power_any = pad_sequence(powers_any, batch_first=True)
    return power_any.unflatten(0, (10, -1)), size_N.unflatten(0, (10, -1))


# --8<-- [end:words]


# --8<-- [start:draw]
class Draw:
    """Random triples of one digit: a picture, a word, an utterance, each spoiled."""

    def __init__(self, digits, speech) -> None:
        """Take images and labels, and what `speak` returns."""
        self.image_NXY, self.label_N = digits
        self.power_any, self.size_any = speech
        self.word_any = spell()

    def __call__(self, B: int):
        """Return three streams, their masks, how spoiled each is (B, 3), the digits (B).

        The streams are patches (B, 16, 49), letters (B, 5) and log powers (B, S, 32).
        """
        index_B, noise_B3 = torch.randint(len(self.label_N), (B,)), torch.rand(B, 3)
        label_B, image_BXY = self.label_N[index_B], self.image_NXY[index_B]
        patch_BPD = image_BXY.unfold(1, 7, 7).unfold(2, 7, 7).flatten(3).flatten(1, 2)
        kept_BP = torch.rand(B, 16) >= noise_B3[:, :1]
        patch_BPD = patch_BPD * kept_BP.unsqueeze(2)
        letter_B5 = self.word_any[torch.randint(2, (B,)), label_B]
        read_B5 = letter_B5 > 0
        wrong_B5 = read_B5 & (torch.rand(B, 5) < noise_B3[:, 1:2])
        other_B5 = torch.randint(1, 1 + len(LETTERS), (B, 5))
        letter_B5 = torch.where(wrong_B5, other_B5, letter_B5)
        way_B = torch.randint(self.size_any.shape[1], (B,))
        power_BSR = self.power_any[label_B, way_B]
        hiss_BSR = torch.empty_like(power_BSR).exponential_()
        level_B11 = 10 ** (4 * noise_B3[:, 2:, None] - 2)
        sound_BSR = (power_BSR + level_B11 * hiss_BSR).log() / 3
        frame_S = torch.arange(sound_BSR.shape[1])
        heard_BS = frame_S < self.size_any[label_B, way_B].unsqueeze(1)
        masks_any = torch.ones_like(kept_BP), read_B5, heard_BS
        return (patch_BPD, letter_B5, sound_BSR), masks_any, noise_B3, label_B


# --8<-- [end:draw]


# --8<-- [start:streams]
def clear(streams_any, masks_any):
    """Put zeros where a mask is False: there may stand anything, even NaN."""
    cleared_any = []
    for stream_any, mask_BS in zip(streams_any, masks_any, strict=True):
        shown_any = mask_BS.unflatten(1, (-1, *[1] * (stream_any.ndim - 2)))
        cleared_any.append(torch.where(shown_any, stream_any, 0))
    return cleared_any


class Entrance(nn.Module):
    """Turn the three streams into tokens of one size, each with its place."""

    def __init__(self, D: int, longest: int) -> None:
        """Take the model size and the largest number of frames."""
        super().__init__()
        self.enter = nn.ModuleList(
            [nn.Linear(49, D), nn.Embedding(1 + len(LETTERS), D), nn.Linear(32, D)]
        )
        # A table of places of its own for each modality also says which modality it is.
        self.place = nn.ParameterList(torch.randn(n, D) * 0.3 for n in (16, 5, longest))
        self.widen = nn.ModuleList(
            nn.Sequential(nn.GELU(), nn.Linear(D, D)) for _ in range(3)
        )

    def forward(self, streams_any, masks_any) -> list[Tensor]:
        """Return three times tokens (B, S, D)."""
        return [
            widen(enter(stream_any) + place_SD[: stream_any.shape[1]])
            for stream_any, enter, place_SD, widen in zip(
                clear(streams_any, masks_any),
                self.enter,
                self.place,
                self.widen,
                strict=True,
            )
        ]


# --8<-- [end:streams]


# --8<-- [start:fusions]
class AttentionFusion(nn.Module):
    """A learned token reads all tokens of all modalities that are there."""

    pace = 5e-3  # learning rate, the better of two on the validation part

    def __init__(self, D: int, longest: int) -> None:
        """Make the entrance, the summary token, the block and the head."""
        super().__init__()
        self.enter = Entrance(D, longest)
        self.summary_D = nn.Parameter(torch.randn(D) * 0.3)
        self.block = Block(D, 4, widen=2)
        self.head = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, 10))

    def together(self, streams_any, masks_any) -> tuple[Tensor, Tensor]:
        """Return the summary and all tokens (B, T, D), and the mask (B, T, T)."""
        parts_any = self.enter(streams_any, masks_any)
        summary_B1D = self.summary_D.expand(len(parts_any[0]), 1, -1)
        there_B1 = masks_any[0].new_ones(len(parts_any[0]), 1)
        token_BTD = torch.cat((summary_B1D, *parts_any), 1)
        there_BT = torch.cat((there_B1, *masks_any), 1)
        return token_BTD, there_BT.unsqueeze(1).expand(-1, there_BT.shape[1], -1)

    def forward(self, streams_any, masks_any) -> Tensor:
        """Return scores (B, 10)."""
        token_BTD, mask_BTT = self.together(streams_any, masks_any)
        return self.head(self.block(token_BTD, mask_BTT)[:, 0])


class PooledFusion(nn.Module):
    """The mean of each modality, the three side by side."""

    pace = 1e-2

    def __init__(self, D: int, longest: int, hidden: int) -> None:
        """Make the entrance and the head."""
        super().__init__()
        self.enter = Entrance(D, longest)
        self.head = nn.Sequential(
            nn.LayerNorm(3 * D),
            nn.Linear(3 * D, hidden),
            nn.GELU(),
            nn.Linear(hidden, 10),
        )

    def forward(self, streams_any, masks_any) -> Tensor:
        """Return scores (B, 10); a modality that is absent has the mean zero."""
        means_BD = []
        for part_BSD, mask_BS in zip(
            self.enter(streams_any, masks_any), masks_any, strict=True
        ):
            total_BD = (part_BSD * mask_BS.unsqueeze(2)).sum(1)
            means_BD.append(total_BD / mask_BS.sum(1, keepdim=True).clamp(min=1))
        return self.head(torch.cat(means_BD, 1))


# --8<-- [end:fusions]


# --8<-- [start:train]
def hide(masks_any, keep_B3: Tensor):
    """Mask the whole stream of each modality that `keep` does not keep."""
    return [mask_BS & keep_B3[:, n : n + 1] for n, mask_BS in enumerate(masks_any)]


class Dropping(nn.Module):
    """In training hide each modality with probability `rate`, all three at times."""

    def __init__(self, fusion: nn.Module, rate: float) -> None:
        """Wrap a fusion; a rate of 0 hides nothing."""
        super().__init__()
        self.fusion, self.rate, self.pace = fusion, rate, fusion.pace

    def forward(self, streams_any, masks_any) -> Tensor:
        """Return scores (B, 10)."""
        if self.training:
            masks_any = hide(masks_any, torch.rand(len(masks_any[0]), 3) >= self.rate)
        return self.fusion(streams_any, masks_any)


def train(model: nn.Module, draw: Draw, steps: int) -> list[float]:
    """Train in place on fresh triples; return the loss of every step."""
    adam = torch.optim.AdamW(model.parameters(), lr=model.pace)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adam, model.pace, total_steps=steps)
    losses = []
    for _ in range(steps):
        streams_any, masks_any, _, label_B = draw(96)
        loss = nn.functional.cross_entropy(model(streams_any, masks_any), label_B)
        adam.zero_grad()
        loss.backward()
        adam.step()
        cycle.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def right(model: nn.Module, triples_any, there: tuple[bool, ...]) -> float:
    """Return the share of digits named with only some modalities there."""
    streams_any, masks_any, _, label_B = triples_any
    keep_B3 = torch.tensor(there).expand(len(label_B), 3)
    logit_BN = model(streams_any, hide(masks_any, keep_B3))
    assert logit_BN.isfinite().all()
    return (logit_BN.argmax(1) == label_B).float().mean().item()


# --8<-- [end:train]


# --8<-- [start:shares]
@torch.no_grad()
def shares(fusion: AttentionFusion, streams_any, masks_any) -> Tensor:
    """Return the weight (B, 3) of the summary on each modality, mean over heads.

    What is missing to 1 it gives to itself.
    """
    token_BTD, mask_BTT = fusion.together(streams_any, masks_any)
    block = fusion.block
    weight_BHTT = weights_of(block.mix, block.norm(token_BTD), None, mask_BTT)
    sizes = [mask_BS.shape[1] for mask_BS in masks_any]
    parts_any = weight_BHTT[:, :, 0, 1:].mean(1).split(sizes, 1)
    return torch.stack([part_BS.sum(1) for part_BS in parts_any], 1)


# --8<-- [end:shares]

if __name__ == "__main__":
    # --8<-- [start:data]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    image_NXY, label_N = read_digits()
    parts = {  # images; then variants of the voices, speeds, pitches
        "train": (slice(0, 3500), "m1 m2 m3 m6 f1 f2", [130, 170, 210], [35, 65]),
        "validation": (slice(3500, 4000), "m5 f5", [150, 190], [50]),
        "test": (slice(4000, 5000), "m4 m7 f3 f4", [150, 190], [50]),
    }
    draws, used = {}, []
    for part, (cut, variants, *ways) in parts.items():
        digits_any = image_NXY[cut], label_N[cut]
        draws[part] = Draw(digits_any, speak(variants.split(), *ways))
        used += variants.split()
        used += {image_XY.cpu().numpy().tobytes() for image_XY in digits_any[0]}
        size_any = draws[part].size_any
        print(
            f"{part:10} {len(digits_any[0]):5} images, {size_any.numel():4} utterances"
            f" of {size_any.min()} to {size_any.max()} frames"
        )
    assert len(set(used)) == len(used)  # no image and no voice in two parts
    longest = max(draw.power_any.shape[2] for draw in draws.values())
    print(f"images: MNIST, from {DIGITS_PACKAGE}, BSD 3-Clause")
    print(f"synthetic speech: eSpeak NG, from {SPEECH_PACKAGE}, GPL-3.0")
    # --8<-- [end:data]

    # --8<-- [start:look]
    streams_any, masks_any, noise_B3, _ = draws["train"](400)
    _, axes = plt.subplots(2, 5)
    for column, level in enumerate((0.05, 0.25, 0.5, 0.75, 0.95)):
        seen, _, heard = (noise_B3 - level).abs().argmin(0)
        rows_any = streams_any[0][seen].unflatten(1, (7, 7)).split(4)
        picture_any = torch.cat(
            [row_any.transpose(0, 1).flatten(1) for row_any in rows_any]
        )
        axes[0, column].imshow(picture_any.cpu())
        axes[0, column].set_title(f"noise {level}")
        axes[1, column].imshow(
            streams_any[2][heard][masks_any[2][heard]].T.flip(0).cpu()
        )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    plt.show()
    # --8<-- [end:look]

    # --8<-- [start:race]
    makers = {
        "attention": lambda: Dropping(AttentionFusion(48, longest), 0),
        "means": lambda: Dropping(PooledFusion(48, longest, 130), 0),
        "attention, hiding": lambda: Dropping(AttentionFusion(48, longest), 0.3),
        "means, hiding": lambda: Dropping(PooledFusion(48, longest, 130), 0.3),
    }
    torch.manual_seed(1)
    test_any = draws["test"](1000)
    results = race(
        makers,
        lambda model: train(model, draws["train"], schedule(200, 2000)),
        lambda model: right(model, test_any, (True, True, True)),
    )
    table(results, "right, all three there")
    # --8<-- [end:race]

    # --8<-- [start:plain]
    lines = []
    for (patch_BPD, letter_B5, sound_BSR), masks_any, _, label_B in (
        draws["train"](4000),
        test_any,
    ):
        sound_BSR = sound_BSR * masks_any[2].unsqueeze(2)
        sound_any = nn.functional.pad(
            sound_BSR, (0, 0, 0, longest - sound_BSR.shape[1])
        )
        letter_any = nn.functional.one_hot(letter_B5, 1 + len(LETTERS))
        row_any = torch.cat(
            [x.flatten(1) for x in (patch_BPD, letter_any, sound_any)], 1
        )
        lines.append((row_any.cpu().numpy(), label_B.cpu().numpy()))
    plain = LogisticRegression(C=0.01, max_iter=200).fit(*lines[0]).score(*lines[1])
    print(f"logistic regression on 4,000 triples: {plain:.3f}")
    in_short(results["means"], results["attention"], plain)
    # --8<-- [end:plain]

    # --8<-- [start:losses]
    plot_losses(results)
    # --8<-- [end:losses]

    # --8<-- [start:subsets]
    senses = "see", "read", "hear"
    print(f"{'there':14}", *(f"{name:>17}" for name in results))
    scores = {}
    for there in sorted(product((True, False), repeat=3), key=sum, reverse=True):
        name = "+".join(compress(senses, there)) or "none"
        for contestant, runs in results.items():
            scores[contestant, name] = [right(m, test_any, there) for m in runs.models]
        row = (f"{show(scores[contestant, name]):>17}" for contestant in results)
        print(f"{name:14}", *row)
    for name in ("see", "hear", "see+read", "read+hear"):
        assert parted(scores["attention, hiding", name], scores["attention", name])
    for name in ("hear", "see+read", "read+hear"):
        assert parted(scores["means", name], scores["attention", name])
    for hiding in ("", ", hiding"):
        pair = (scores[f"{f}{hiding}", "see+read+hear"] for f in ("attention", "means"))
        assert not parted(*pair)
    # --8<-- [end:subsets]

    # --8<-- [start:share-figure]
    models = [model.fusion for model in results["attention, hiding"].models]
    streams_any, masks_any, noise_B3, label_B = test_any
    share_B3 = torch.stack([shares(m, streams_any, masks_any) for m in models]).mean(0)
    count_B3 = torch.stack([mask_any.sum(1) for mask_any in masks_any], 1)
    equal_3 = (count_B3 / (1 + count_B3.sum(1, keepdim=True))).mean(0)
    for n, name in enumerate(senses):
        fifth_B = (noise_B3[:, n] * 5).long()
        means = [share_B3[fifth_B == f, n].mean().item() for f in range(5)]
        (line,) = plt.plot([0.1, 0.3, 0.5, 0.7, 0.9], means, "o-", label=name)
        plt.axhline(equal_3[n].item(), color=line.get_color(), linestyle=":")
        print(f"{name:5}{means[0]:.2f} → {means[-1]:.2f}, equal {equal_3[n]:.2f}")
    plt.xlabel("noise in that modality")
    plt.ylabel("share of the weight")
    plt.legend()
    plt.show()
    # --8<-- [end:share-figure]

    # --8<-- [start:equal]
    for name in ("see", "read", "hear", "see+read+hear"):
        there = tuple(sense in name for sense in senses)
        changes = [
            right(equal_weights(model, "mix.to_q"), test_any, there)
            for model in results["attention, hiding"].models
        ]
        print(f"{name:14}{show(scores['attention, hiding', name])} → {show(changes)}")
    # --8<-- [end:equal]
