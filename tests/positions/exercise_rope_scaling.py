"""Exercise: rotary frequencies for a longer context."""

from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import agreement

# isort: split
# --8<-- [start:checks]
import math

import torch


def pair_by_pair(size, base, slowed_by):
    """Each pair on its own: its frequency, divided by slowed_by(j, frequency)."""
    plain = [math.exp(-math.log(base) * 2 * j / size) for j in range(size // 2)]
    found = [theta / slowed_by(j, theta) for j, theta in enumerate(plain)]
    device = torch.get_default_device()
    return torch.tensor(found, dtype=torch.float64, device=device)


def shared(kept, scale):
    """The divisor of a pair of which the share `kept` is not slowed."""
    kept = min(max(kept, 0.0), 1.0)
    return 1 / (kept + (1 - kept) / scale)


def drawn(draw):
    """A size, a base, a scale and a trained length."""
    size = 2 * draw.size("pairs", 2, 32)
    base = draw.choice("base", [10000.0, 500000.0, 100.0])
    scale = draw.choice("scale", [4.0, 1.5, 8.0])
    return size, base, scale, draw.choice("trained", [4096, 512, 8192])


def exact(ours, expected):
    """Compare ratios: the slow frequencies are tiny."""
    if tuple(ours.shape) == tuple(expected.shape):
        ours, expected = ours.double() / expected, torch.ones_like(expected)
    agreement(ours, expected, "the ratio to the right frequency", "与正确频率之比")


@check(en="Scale 1 changes nothing", zh="放大 1 倍等于不变")
def unscaled(attempt, draw: Draw):
    """All maps return the plain frequencies."""
    size, base, _, trained = drawn(draw)
    plain = pair_by_pair(size, base, lambda j, theta: 1.0)
    exact(attempt.interpolate(plain, 1.0), plain)
    exact(attempt.ntk_aware(size, 1.0, base), plain)
    exact(attempt.by_parts(size, 1.0, trained, base), plain)
    exact(attempt.llama3(size, 1.0, trained, base), plain)
    table, factor = attempt.yarn(size, 1.0, trained, base)
    exact(table, plain)
    if factor != 1:
        raise Broken(f"the factor at scale 1 is {factor}", f"不放大时系数是 {factor}")


@check(en="A pair turns trained · θ / 2π times", zh="每一对转 trained · θ / 2π 圈")
def counted(attempt, draw: Draw):
    """Radians become turns."""
    size, base, _, trained = drawn(draw)
    plain = pair_by_pair(size, base, lambda j, theta: 1.0)
    exact(attempt.turns(plain, trained), trained * plain / math.tau)


@check(en="Interpolation slows all pairs alike", zh="位置插值把所有频率同样放慢")
def uniform(attempt, draw: Draw):
    """θ / scale."""
    size, base, scale, _ = drawn(draw)
    plain = pair_by_pair(size, base, lambda j, theta: 1.0)
    exact(
        attempt.interpolate(plain, scale),
        pair_by_pair(size, base, lambda j, theta: scale),
    )


@check(
    en="NTK-aware: first pair kept, last slowed fully",
    zh="NTK-aware：首对不变，末对放慢到底",
)
def geometric(attempt, draw: Draw):
    """Slowed by scale^(j / (J - 1)): a geometric row from 1 to scale."""
    size, base, scale, _ = drawn(draw)
    expected = pair_by_pair(size, base, lambda j, theta: scale ** (j / (size // 2 - 1)))
    exact(attempt.ntk_aware(size, scale, base), expected)


@check(
    en="By parts: kept above `fast`, slowed below `slow`", zh="分段：快的不动，慢的放慢"
)
def parts(attempt, draw: Draw):
    """The share kept is linear in the turns."""
    size, base, scale, trained = drawn(draw)
    slow, fast = draw.choice("bounds", [(1.0, 32.0), (1.0, 4.0), (2.0, 8.0)])

    def slowed_by(j, theta):
        return shared((trained * theta / math.tau - slow) / (fast - slow), scale)

    exact(
        attempt.by_parts(size, scale, trained, base, slow, fast),
        pair_by_pair(size, base, slowed_by),
    )


@check(en="Llama 3.1 has the bounds 1 and 4", zh="Llama 3.1 的界是 1 和 4")
def released(attempt, draw: Draw):
    """Written with wavelengths, as in the released code."""
    size, base, scale, trained = drawn(draw)

    def slowed_by(j, theta):
        wavelength = math.tau / theta
        if wavelength < trained / 4:
            return 1.0
        if wavelength > trained:
            return scale
        return shared((trained / wavelength - 1) / 3, scale)

    exact(
        attempt.llama3(size, scale, trained, base),
        pair_by_pair(size, base, slowed_by),
    )


@check(en="YaRN blends linearly in the pairs", zh="YaRN 按维度对的序号线性过渡")
def blended(attempt, draw: Draw):
    """Bounds rounded outwards to whole pairs."""
    size, base, scale, trained = drawn(draw)

    def pair_with(turned):
        return size * math.log(trained / (math.tau * turned), base) / 2

    first = max(math.floor(pair_with(32)), 0)
    last = min(math.ceil(pair_with(1)), size - 1)

    def slowed_by(j, theta):
        return shared(1 - (j - first) / max(last - first, 1e-3), scale)

    table, _ = attempt.yarn(size, scale, trained, base)
    exact(table, pair_by_pair(size, base, slowed_by))


@check(en="YaRN's factor for queries and keys", zh="YaRN 乘在查询和键上的系数")
def tempered(attempt, draw: Draw):
    """0.1 ln(scale) + 1, once on each side."""
    scale = draw.choice("scale", [4.0, 16.0, 128.0])
    mscale = draw.choice("mscale", [1.0, 0.707])
    all_dim = draw.choice("all_dim", [0.0, 1.0, 0.5])
    expected = (1 + mscale * math.log(scale) / 10) / (
        1 + all_dim * math.log(scale) / 10
    )
    came = attempt.attention_factor(scale, mscale, all_dim)
    plain = 1 + math.log(scale) / 10
    also = attempt.yarn(64, scale, 4096)[1]
    for value, right in ((came, expected), (also, plain)):
        if abs(value - right) > 1e-9:
            raise Broken(
                f"the factor is {value / right:.4g} times what it should be",
                f"系数是应有值的 {value / right:.4g} 倍",
            )


CHECKS = [
    unscaled,
    counted,
    uniform,
    geometric,
    parts,
    released,
    blended,
    tempered,
]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    return lambda: attempt.yarn(4096, 8.0, 8192)


# --8<-- [end:checks]
