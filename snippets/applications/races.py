"""Train the same task with and without attention, several seeds each, and compare."""

# --8<-- [start:imports]
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

# --8<-- [end:imports]
# isort: split
from snippets.applications.blocks import Block, UniformMixing
from snippets.transformer.multi_head import MultiHeadAttention


# --8<-- [start:runs]
@dataclass
class Runs:
    """What one contestant left: an entry per seed in each list."""

    models: list[nn.Module] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        """Number of the trained parameters."""
        trained_any = self.models[0].parameters()
        return sum(one_any.numel() for one_any in trained_any if one_any.requires_grad)


def spread(values: list[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation; 0 for the latter of a single value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def show(values: list[float], digits: int = 3) -> str:
    """Return "mean ± standard deviation", or the bare value of a single run."""
    mean, deviation = spread(values)
    if len(values) == 1:
        return f"{mean:.{digits}f} (one run)"
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def parted(higher: list[float], lower: list[float]) -> bool:
    """Whether mean ± standard deviation of `higher` lies wholly above that of `lower`.

    Raises ValueError when either has fewer than two values: one run has no interval.
    """
    if min(len(higher), len(lower)) < 2:
        raise ValueError(
            f"{len(higher)} and {len(lower)} runs: two or more of each are needed"
        )
    (high, above), (low, below) = spread(higher), spread(lower)
    return high - above > low + below


def in_short(
    without: Runs,
    attention: Runs,
    plain: float | None = None,
    digits: int = 3,
    of: str = "",
) -> None:
    """Print the line from which the index of the applications takes its numbers.

    `plain` is the score of a baseline that is not a network, `of` tells two results
    of one page apart.
    """
    parts = [f"without {show(without.scores, digits)}"]
    parts.append(f"with {show(attention.scores, digits)}")
    if plain is not None:
        parts.append(f"plain {plain:.{digits}f}")
    if without.seconds and attention.seconds:
        seconds = [statistics.mean(runs.seconds) for runs in (without, attention)]
        parts.append("seconds " + " → ".join(f"{each:.1f}" for each in seconds))
    print(f"in short{f' ({of})' if of else ''}: {'; '.join(parts)}")


# --8<-- [end:runs]


# --8<-- [start:race]
def schedule(cpu: int, gpu: int) -> int:
    """Return how many steps to train: the longer schedule only where there is a GPU."""
    return gpu if torch.cuda.is_available() else cpu


def race(
    makers: dict[str, Callable[[], nn.Module]],
    train: Callable[[nn.Module], list[float]],
    score: Callable[[nn.Module], float],
    seeds: int = 3,
) -> dict[str, Runs]:
    """Train every contestant once per seed and score it.

    `train` trains in place and returns the loss of each step; it and the maker start
    from the same seed for every contestant. `score` gets the model in eval mode,
    without gradients. `seconds` is the time of `train` alone.
    """
    results = {name: Runs() for name in makers}
    laps = [(name, seed) for seed in range(seeds) for name in makers]
    for name, seed in tqdm(laps, file=sys.stdout, desc="runs", mininterval=1):
        torch.manual_seed(seed)
        model = makers[name]()
        torch.manual_seed(seed)
        start = time.perf_counter()
        losses = train(model)
        seconds = time.perf_counter() - start
        model.eval()
        with torch.no_grad():
            value = float(score(model))
        runs = results[name]
        runs.models.append(model)
        runs.losses.append(losses)
        runs.scores.append(value)
        runs.seconds.append(seconds)
    return results


# --8<-- [end:race]


# --8<-- [start:table]
def table(results: dict[str, Runs], measure: str = "score", digits: int = 3) -> None:
    """Print one row a contestant: parameters, seconds of training a run, score."""
    width = max(map(len, results))
    print(f"{'':{width}}  parameters  seconds  {measure}")
    for name, runs in results.items():
        seconds = statistics.mean(runs.seconds)
        print(
            f"{name:{width}}  {runs.parameters:10,}  {seconds:7.1f}"
            f"  {show(runs.scores, digits)}"
        )


def plot_losses(results: dict[str, Runs], window: int = 20) -> None:
    """Plot each contestant's loss: mean over seeds, averaged over `window` steps.

    Raises ValueError when a run has fewer steps than one window.
    """
    for name, runs in results.items():
        steps = min(map(len, runs.losses))
        if steps < window:
            raise ValueError(f"{name} has {steps} steps, window is {window}")
        loss_NT = torch.tensor([losses[:steps] for losses in runs.losses], device="cpu")
        smooth_N = loss_NT.mean(0).unfold(0, window, window).mean(1)
        place = [(part + 0.5) * window for part in range(len(smooth_N))]
        plt.plot(place, smooth_N.tolist(), label=name)
    plt.xlabel("step")
    plt.ylabel("training loss")
    plt.legend()
    plt.show()


# --8<-- [end:table]


# --8<-- [start:toy]
class LookUp(nn.Module):
    """A toy: position 0 asks for a key, the answer is the class beside that key."""

    def __init__(self, mixer: type[nn.Module], size: int) -> None:
        """Make an embedding, one block with the given mixer, and a head."""
        super().__init__()
        self.embed = nn.Linear(18, size)
        self.block = Block(size, heads=2, mixer=mixer)
        self.head = nn.Linear(size, 10)

    def forward(self, x_BTI: Tensor) -> Tensor:
        """Return the scores (B, 10), read at position 0."""
        return self.head(self.block(self.embed(x_BTI))[:, 0])


def draw(B: int) -> tuple[Tensor, Tensor]:
    """Return (B, 9, 18), a question and 8 pairs of key and class, and the answers (B)."""
    key_B8 = torch.rand(B, 8).argsort(1)
    class_B8 = torch.randint(10, (B, 8))
    pair_B8I = torch.cat((F.one_hot(key_B8, 8), F.one_hot(class_B8, 10)), 2)
    asked_B1 = torch.randint(8, (B, 1))
    question_B1I = F.pad(F.one_hot(key_B8.gather(1, asked_B1), 8), (0, 10))
    x_BTI = torch.cat((question_B1I, pair_B8I), 1).float()
    return x_BTI, class_B8.gather(1, asked_B1).squeeze(1)


def train(model: LookUp) -> list[float]:
    """Train in place; return the loss of every step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(schedule(cpu=600, gpu=600)):
        x_BTI, answer_B = draw(64)
        loss = F.cross_entropy(model(x_BTI), answer_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# --8<-- [end:toy]

if __name__ == "__main__":
    # --8<-- [start:toy-race]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    x_BTI, answer_B = draw(2000)
    results = race(
        {
            "attention": lambda: LookUp(MultiHeadAttention, size=32),
            "uniform": lambda: LookUp(UniformMixing, size=34),
        },
        train,
        score=lambda model: (model(x_BTI).argmax(1) == answer_B).float().mean(),
    )
    table(results, "accuracy")
    in_short(results["uniform"], results["attention"])
    assert parted(results["attention"].scores, results["uniform"].scores)
    # --8<-- [end:toy-race]

    # --8<-- [start:toy-losses]
    plot_losses(results)
    # --8<-- [end:toy-losses]

    # --8<-- [start:false-alarms]
    for seeds in (2, 3, 5, 10):
        alike = [torch.randn(2, seeds).tolist() for _ in range(10_000)]
        alarms = sum(parted(a, b) or parted(b, a) for a, b in alike)
        print(f"{seeds:2} seeds, no true difference: parted in {alarms / 10_000:.1%}")
    # --8<-- [end:false-alarms]
