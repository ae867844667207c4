"""Tell a digit from what is seen, read and heard, whichever of the three is there."""

# --8<-- [start:imports]
import ctypes
from copy import deepcopy
from itertools import product

import matplotlib.pyplot as plt
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

# --8<-- [end:imports]
# isort: split
from snippets.applications.blocks import Block, weights_of
from snippets.applications.digits import DIGITS_PACKAGE, read_digits
from snippets.applications.package_data import package_file
from snippets.applications.races import (
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
        """Load the library; raises what `package_file` raises, and OSError."""
        path = package_file(SPEECH_PACKAGE, "libespeak-ng.so", SPEECH_DIGEST)
        self.library = ctypes.CDLL(str(path))
        # 2: hand the samples over and return when done; 0x8000: on errors do not exit.
        folder = str(path.parent).encode()
        self.rate = self.library.espeak_Initialize(2, 0, folder, 0x8000)
        if self.rate <= 0:
            raise OSError(f"eSpeak NG does not start with the data in {path.parent}")
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
    voices = [("cmn", WORDS[0]), ("en-us", WORDS[1])]
    for digit in range(10):
        for (voice, words), variant, speed, pitch in product(
            voices, variants, speeds, pitches
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
        self.power_any, self.size_any = speech  # (10, N, S, 32) and (10, N)
        self.word_any = spell()

    def __call__(self, B: int):
        """Return three streams, their masks, how spoiled each is (B, 3), the digits (B).

        The streams are patches (B, 16, 49), letters (B, 5) and log powers (B, S, 32).
        """
        index_B = torch.randint(len(self.label_N), (B,))
        label_B, noise_B3 = self.label_N[index_B], torch.rand(B, 3)
        image_BXY = self.image_NXY[index_B]
        patch_BPD = image_BXY.unfold(1, 7, 7).unfold(2, 7, 7).flatten(3).flatten(1, 2)
        lost_BP = torch.rand(B, 16) < noise_B3[:, :1]
        patch_BPD = patch_BPD.masked_fill(lost_BP.unsqueeze(2), 0.0)
        letter_B5 = self.word_any[torch.randint(2, (B,)), label_B]
        wrong_B5 = torch.rand(B, 5) < noise_B3[:, 1:2]
        other_B5 = torch.randint(1, 1 + len(LETTERS), (B, 5))
        read_B5 = letter_B5 > 0
        letter_B5 = torch.where(wrong_B5 & read_B5, other_B5, letter_B5)
        way_B = torch.randint(self.size_any.shape[1], (B,))
        power_BSR = self.power_any[label_B, way_B]
        hiss_BSR = torch.empty_like(power_BSR).exponential_()
        level_B11 = 10 ** (4 * noise_B3[:, 2:, None] - 2)
        sound_BSR = (power_BSR + level_B11 * hiss_BSR).log() / 3
        size_B1 = self.size_any[label_B, way_B].unsqueeze(1)
        heard_BS = torch.arange(sound_BSR.shape[1]) < size_B1
        seen_BP = torch.ones_like(lost_BP)
        streams_any = patch_BPD, letter_B5, sound_BSR
        return streams_any, (seen_BP, read_B5, heard_BS), noise_B3, label_B


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
    """Return the weight (B, 3) that the summary gives to each modality, of all heads.

    What is missing to 1 it gives to itself.
    """
    token_BTD, mask_BTT = fusion.together(streams_any, masks_any)
    block = fusion.block
    weight_BHTT = weights_of(block.mix, block.norm(token_BTD), None, mask_BTT)
    weight_BT = weight_BHTT[:, :, 0].mean(1)
    sizes = [mask_BS.shape[1] for mask_BS in masks_any]
    parts_any = weight_BT[:, 1:].split(sizes, 1)
    return torch.stack([part_BS.sum(1) for part_BS in parts_any], 1)


# --8<-- [end:shares]

if __name__ == "__main__":
    # --8<-- [start:data]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    VARIANTS = {  # of eSpeak NG's voices, and the speeds and pitches
        "train": ("m1 m2 m3 m6 f1 f2".split(), [130, 170, 210], [35, 65]),
        "validation": ("m5 f5".split(), [150, 190], [50]),
        "test": ("m4 m7 f3 f4".split(), [150, 190], [50]),
    }
    spoken = {part: speak(*settings) for part, settings in VARIANTS.items()}
    image_NXY, label_N = read_digits()
    cuts = {"train": (0, 3500), "validation": (3500, 4000), "test": (4000, 5000)}
    draws, images = {}, {}
    for part, (first, last) in cuts.items():
        draws[part] = Draw((image_NXY[first:last], label_N[first:last]), spoken[part])
        images[part] = {
            image_XY.cpu().numpy().tobytes() for image_XY in image_NXY[first:last]
        }
        power_any, size_any = spoken[part]
        print(
            f"{part:10} {last - first:5} images, {size_any.numel():4} utterances of "
            f"{size_any.min()} to {size_any.max()} frames, voices {VARIANTS[part][0]}"
        )
    for one, two in (
        ("train", "validation"),
        ("train", "test"),
        ("validation", "test"),
    ):
        assert not images[one] & images[two]
        assert not set(VARIANTS[one][0]) & set(VARIANTS[two][0])
    longest = max(power_any.shape[2] for power_any, _ in spoken.values())
    print(f"images: {DIGITS_PACKAGE} (BSD 3-Clause; MNIST)")
    print(f"speech: synthetic, eSpeak NG (GPL-3.0) of {SPEECH_PACKAGE}")
    # --8<-- [end:data]

    # --8<-- [start:look]
    streams_any, masks_any, noise_B3, label_B = draws["train"](400)
    _, axes = plt.subplots(2, 5)
    for column, level in zip(range(5), (0.05, 0.25, 0.5, 0.75, 0.95), strict=True):
        row = (noise_B3[:, 0] - level).abs().argmin()
        patch_44XY = streams_any[0][row].unflatten(1, (7, 7)).unflatten(0, (4, 4))
        axes[0, column].imshow(
            patch_44XY.transpose(1, 2).flatten(2).flatten(0, 1).cpu()
        )
        axes[0, column].set_title(f"noise {level}")
        row = (noise_B3[:, 2] - level).abs().argmin()
        size = masks_any[2][row].sum()
        axes[1, column].imshow(
            streams_any[2][row, :size].T.flip(0).cpu(), aspect="auto"
        )
        axes[1, column].set_title(f"“{label_B[row]}”, {size} frames")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    plt.show()
    # --8<-- [end:look]

    # --8<-- [start:race]
    def maker(attention: bool, rate: float):
        """Return what makes a contestant, of 48 numbers a token."""
        if attention:
            return lambda: Dropping(AttentionFusion(48, longest), rate)
        return lambda: Dropping(PooledFusion(48, longest, 130), rate)

    torch.manual_seed(1)
    test_any = draws["test"](2000)
    steps = schedule(250, 2000)
    results = race(
        {
            f"{name}{', hiding' * (rate > 0)}": maker(name == "attention", rate)
            for rate in (0.3, 0.0)
            for name in ("attention", "means")
        },
        lambda model: train(model, draws["train"], steps),
        lambda model: right(model, test_any, (True, True, True)),
    )
    table(results, "right, all three there")
    # --8<-- [end:race]

    # --8<-- [start:plain]
    def flat(streams_any, masks_any):
        """Return all three streams of each row in one line, for scikit-learn."""
        patch_BPD, letter_B5, sound_BSR = clear(streams_any, masks_any)
        letter_any = nn.functional.one_hot(letter_B5, 1 + len(LETTERS))
        sound_any = nn.functional.pad(
            sound_BSR, (0, 0, 0, longest - sound_BSR.shape[1])
        )
        parts_any = patch_BPD.flatten(1), letter_any.flatten(1), sound_any.flatten(1)
        return torch.cat(parts_any, 1).cpu().numpy()

    streams_any, masks_any, _, label_B = draws["train"](4000)
    regression = LogisticRegression(C=0.01, max_iter=200)
    regression.fit(flat(streams_any, masks_any), label_B.cpu().numpy())
    plain = regression.score(flat(*test_any[:2]), test_any[3].cpu().numpy())
    print(f"logistic regression on 4,000 triples, all three there: {plain:.3f}")
    # --8<-- [end:plain]

    # --8<-- [start:losses]
    plot_losses(results)
    # --8<-- [end:losses]

    # --8<-- [start:subsets]
    print(f"{'there':14}", *(f"{name:>17}" for name in results))
    scores = {}
    for there in sorted(product((True, False), repeat=3), key=sum, reverse=True):
        names = [n for n, t in zip(("see", "read", "hear"), there, strict=True) if t]
        name = "+".join(names) or "none"
        for contestant, runs in results.items():
            scores[contestant, name] = [right(m, test_any, there) for m in runs.models]
        row = (f"{show(scores[contestant, name]):>17}" for contestant in results)
        print(f"{name:14}", *row)
    # --8<-- [end:subsets]

    # --8<-- [start:share-figure]
    models = [model.fusion for model in results["attention, hiding"].models]
    streams_any, masks_any, noise_B3, label_B = test_any
    share_B3 = torch.stack([shares(m, streams_any, masks_any) for m in models]).mean(0)
    count_B3 = torch.stack([mask_BS.sum(1) for mask_BS in masks_any], 1)
    equal_3 = (count_B3 / (1 + count_B3.sum(1, keepdim=True))).mean(0)
    for n, name in enumerate(("see", "read", "hear")):
        fifth_B = (noise_B3[:, n] * 5).long()
        means = [share_B3[fifth_B == f, n].mean().item() for f in range(5)]
        (line,) = plt.plot([0.1, 0.3, 0.5, 0.7, 0.9], means, "o-", label=name)
        plt.axhline(equal_3[n].item(), color=line.get_color(), linestyle=":")
        print(f"{name:5} least spoiled {means[0]:.2f}, most {means[-1]:.2f}", end="")
        print(f", if all tokens weighed the same {equal_3[n]:.2f}")
    plt.xlabel("noise in that modality")
    plt.ylabel("share of the summary's weight")
    plt.ylim(bottom=0)
    plt.legend()
    plt.show()
    # --8<-- [end:share-figure]

    # --8<-- [start:equal]
    for n, name in enumerate(("see", "read", "hear")):
        there = tuple(n == m for m in range(3))
        print(f"{name:5}", end="")
        for model in results["attention, hiding"].models:
            equal = deepcopy(model)
            for part in equal.fusion.block.mix.to_q.parameters():
                part.data.zero_()
            print(f"  {right(model, test_any, there):.3f} → ", end="")
            print(f"{right(equal, test_any, there):.3f}", end="")
        print()
    # --8<-- [end:equal]
