"""Exercise: sinusoidal positions."""

from snippets.properties.cost import peak_bytes
from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import agreement

# isort: split
# --8<-- [start:checks]
import math

import torch


@check(en="Position 0 is 0, 1, 0, 1, …", zh="位置 0 是 0, 1, 0, 1, …")
def origin(attempt, draw: Draw):
    """Sines and cosines take turns, whatever the size."""
    size = draw.size("D", 1, 9)
    code = attempt.sinusoidal(torch.tensor([0]), size)
    expected = torch.arange(size).remainder(2).to(code)[None]
    agreement(code, expected, en="the code of position 0", zh="位置 0 的编码")


@check(en="Each pair of channels lies on a circle", zh="每对通道落在单位圆上")
def circle(attempt, draw: Draw):
    """A sine and its cosine have one frequency, so that their squares sum to 1."""
    size = 2 * draw.size("D / 2", 1, 6)
    position = torch.tensor([draw.size("position", 0, 500)])
    pair = attempt.sinusoidal(position, size).unflatten(1, (-1, 2))
    agreement(
        pair.square().sum(2),
        torch.ones_like(pair[..., 0]),
        en="sin² + cos² of a pair",
        zh="一对通道的 sin² + cos²",
    )


@check(en="The formula of the paper", zh="论文的公式")
def loops(attempt, draw: Draw):
    """Every channel of every size, odd ones, too."""
    size, p = draw.size("D", 1, 9), draw.size("position", 0, 3000)
    row = []
    for channel in range(size):
        angle = p / 10000 ** (channel // 2 * 2 / size)
        row.append(math.cos(angle) if channel % 2 else math.sin(angle))
    expected = torch.tensor([row], dtype=torch.float64)
    code = attempt.sinusoidal(torch.tensor([p]), size)
    agreement(code.double(), expected, en="the code", zh="编码")


@check(en="The same codes for every sample", zh="每个样本得到同样的编码")
def samples(attempt, draw: Draw):
    """The batch axis has nothing to do with time."""
    B, T, D = draw.size("B", 2, 4), draw.size("T", 1, 5), draw.size("D", 2, 8)
    added = attempt.add_positions(torch.zeros(B, T, D, dtype=torch.float64))
    expected = attempt.sinusoidal(torch.arange(T), D).to(added).expand(B, T, D)
    agreement(added, expected, en="what was added to zeros", zh="加在零上的编码")


@check(en="With a cache, positions go on", zh="有缓存时位置接着数")
def continued(attempt, draw: Draw):
    """Feeding a sequence in two pieces equals feeding it whole."""
    T, D = draw.size("T", 2, 7), draw.size("D", 1, 6)
    cut = draw.size("length of the first piece", 1, T - 1)
    x = draw.normal(2, T, D)
    parts = [
        attempt.add_positions(x[:, :cut]),
        attempt.add_positions(x[:, cut:], start=cut),
    ]
    agreement(
        torch.cat(parts, 1),
        attempt.add_positions(x),
        en="the sum fed in two pieces",
        zh="分两段输入的结果",
    )


@check(en="Half precision does not blur positions", zh="半精度不会让位置变模糊")
def half(attempt, draw: Draw):
    """Only the result is rounded to the dtype of x, not what it is computed from."""
    dtype = draw.choice("dtype", [torch.bfloat16, torch.float16])
    start = draw.size("start", 257, 4000)
    added = attempt.add_positions(torch.zeros(1, 1, 16, dtype=dtype), start)
    if added.dtype != dtype:
        raise Broken(
            f"the sum has {added.dtype}, expected {dtype}", "结果的 dtype 变了"
        )
    channel = torch.arange(16, dtype=torch.float64)
    angle = start / 10000 ** (channel.div(2, rounding_mode="floor") * 2 / 16)
    exact = torch.where(channel.remainder(2) == 0, angle.sin(), angle.cos())
    error = (added[0, 0].double() - exact).abs().max().item()
    if not error <= torch.finfo(dtype).eps:
        raise Broken(f"the code is off by {error:.2g}", f"编码相差 {error:.2g}")


@check(en="A shift turns codes into later codes", zh="平移把编码变成后面位置的编码")
def shifted(attempt, draw: Draw):
    """From the codes alone, for offsets forwards and backwards."""
    size = 2 * draw.size("D / 2", 1, 5)
    position = torch.tensor([draw.size("position", 0, 50)])
    offset = draw.size("offset", -20, 20)
    agreement(
        attempt.shift(attempt.sinusoidal(position, size), offset).double(),
        attempt.sinusoidal(position + offset, size).double(),
        en="the shifted code",
        zh="平移后的编码",
    )


@check(en="A shift is linear", zh="平移是线性的")
def linear(attempt, draw: Draw):
    """It does not read the position out of the code: any vector may come."""
    size = 2 * draw.size("D / 2", 1, 5)
    a, b = draw.normal(1, size), draw.normal(1, size)
    offset = draw.size("offset", 0, 20)
    agreement(
        attempt.shift(a + b, offset),
        attempt.shift(a, offset) + attempt.shift(b, offset),
        en="the shift of a sum",
        zh="和的平移",
    )


@check(en="Memory grows with T · D", zh="内存随 T · D 增长")
def memory(attempt, draw: Draw):
    """No T × T and no D × D table: eight codes' worth of float64 at most."""
    T = 64 * draw.size("T / 64", 1, 8)
    made = peak_bytes(lambda: attempt.sinusoidal(torch.arange(T), 32))
    if made > 8 * (8 * T * 32):
        raise Broken(f"{made} bytes at once for T = {T}", f"T = {T} 时占用 {made} 字节")


CHECKS = [origin, circle, samples, continued, shifted, linear, loops, half, memory]


def workload(attempt):
    """Return a call whose time and peak memory are compared with the reference's."""
    x = torch.randn(4, 2048, 256)
    return lambda: attempt.add_positions(x)


# --8<-- [end:checks]
