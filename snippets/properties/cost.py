"""What a call costs: floating-point operations, peak memory, time, and how it grows."""

# --8<-- [start:cost]
import math
import weakref
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode


def count_flops(call: Callable) -> int:
    """Return the FLOPs of the matrix products in one call, 2 for a multiply-add."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


class Allocations(TorchDispatchMode):
    """Adds up the storages that live at once while it is entered, in bytes."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.live = self.peak = self.largest = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func, types, args_any=(), kwargs=None):
        """Run an operator; count what it allocates."""
        kwargs = kwargs or {}
        given = {
            _key(one_any) for one_any in tree_leaves((args_any, kwargs)) if _is(one_any)
        }
        out_any = func(*args_any, **kwargs)
        for one_any in tree_leaves(out_any):
            if _is(one_any) and (key := _key(one_any)) not in self.seen | given:
                storage = one_any.untyped_storage()
                size = storage.nbytes()
                self.seen.add(key)
                self.live += size
                self.peak = max(self.peak, self.live)
                self.largest = max(self.largest, size)
                weakref.finalize(storage, self._free, key, size)
        return out_any

    def _free(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.live -= size


def _is(one_any: object) -> bool:
    return isinstance(one_any, Tensor) and one_any.layout == torch.strided


def _key(one_any: Tensor) -> int:
    return one_any.untyped_storage()._cdata


def peak_bytes(call: Callable) -> int:
    """Return the most bytes that tensors made by one call occupy at once."""
    with Allocations() as made:
        call()
    return made.peak


def largest_bytes(call: Callable) -> int:
    """Return the size of the largest tensor that one call makes, in bytes."""
    with Allocations() as made:
        call()
    return made.largest


def seconds(call: Callable, runs: int = 5) -> float:
    """Return the mean time of one call."""
    call()
    return Timer("call()", globals={"call": call}).timeit(runs).mean


def exponent(lengths: Sequence[int], values: Sequence[float]) -> float:
    """Return p of the best fit value ∝ length^p: the slope in a log-log picture."""
    log_L = torch.tensor([math.log(n) for n in lengths], device="cpu")
    value_L = torch.tensor([math.log(v) for v in values], device="cpu")
    centered_L = log_L - log_L.mean()
    return (centered_L @ value_L / centered_L.square().sum()).item()


def plot_growth(
    lengths: Sequence[int], curves: dict[str, tuple[Sequence[float], float]]
) -> None:
    """Draw {label: (values, stated exponent)} on log-log axes, fits in the legend."""
    for (label, (values, stated)), mark in zip(curves.items(), "os^dv", strict=False):
        fitted = exponent(lengths, values)
        plt.loglog(
            lengths,
            values,
            f"{mark}-",
            label=f"{label}: fitted {fitted:.2f}, stated {stated:g}",
        )
    plt.xlabel("length")
    plt.legend()


# --8<-- [end:cost]


if __name__ == "__main__":
    # --8<-- [start:known]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    x_SK = torch.randn(256, 64)
    flops = count_flops(lambda: x_SK @ x_SK.mT)
    print(f"product of 256 × 64 and 64 × 256: {flops} FLOPs")
    assert flops == 2 * 256 * 256 * 64

    def two_steps() -> Tensor:
        """Make the scores, then their weights: both live at once."""
        score_SS = x_SK @ x_SK.mT
        return torch.softmax(score_SS, dim=-1)

    one = 256 * 256 * 4
    print(f"scores and weights: peak {peak_bytes(two_steps)} = 2 × {one} bytes")
    assert peak_bytes(two_steps) == 2 * one
    assert largest_bytes(two_steps) == one
    # --8<-- [end:known]

    # --8<-- [start:growth]
    lengths = [256, 512, 1024, 2048]
    products = []
    for length in lengths:
        q_TK = torch.randn(length, 64)
        products.append(seconds(lambda q_TK=q_TK: torch.softmax(q_TK @ q_TK.mT, -1)))
    plot_growth(lengths, {"q @ k.mT, softmax": (products, 2)})
    plt.ylabel("seconds")
    plt.show()
    # --8<-- [end:growth]
