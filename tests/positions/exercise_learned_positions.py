"""Exercise: learned positions."""

from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import (
    agreement,
    batch_independence,
    cached_equals_full,
    gradient_flow,
    registered_parameters,
)

# isort: split
# --8<-- [start:checks]
import math

import torch


def filled(attempt, longest: int, size: int):
    """Return a layer in float64 with rows that differ."""
    layer = attempt.LearnedPositions(longest, size).double()
    rows = torch.arange(longest * size, dtype=torch.float64).reshape(longest, size)
    with torch.no_grad():
        layer.table.copy_(rows)
    return layer


@check(en="Tokens are counted, padding is not", zh="数词元，不数填充")
def counted(attempt, draw: Draw):
    """Padding on the left, on the right, or between."""
    B, S = draw.size("B", 1, 3), draw.size("S", 1, 6)
    keep = draw.mask(B, S)
    ids = attempt.position_ids(keep)
    for row, kept in zip(ids.tolist(), keep.tolist(), strict=True):
        seen = [p for p, k in zip(row, kept, strict=True) if k]
        if seen != list(range(len(seen))):
            raise Broken(
                f"the tokens of {kept} have positions {seen}",
                f"{kept} 中词元的位置是 {seen}",
            )


@check(en="Padding has a row, too", zh="填充也有对应的行")
def padded(attempt, draw: Draw):
    """No index is negative: it would be another row, or an error."""
    keep = draw.mask(2, draw.size("S", 1, 6), share=0.4)
    ids = attempt.position_ids(keep)
    if ids.numel() and not 0 <= ids.min() <= ids.max() < keep.shape[1]:
        raise Broken(f"positions are {ids.tolist()}", f"位置是 {ids.tolist()}")


@check(en="The newest tokens go on from the cache", zh="新词元接着缓存数")
def newest(attempt, draw: Draw):
    """They are numbered after the tokens before them."""
    S = draw.size("S", 1, 6)
    T = draw.size("newest", 1, S)
    keep = draw.mask(2, S)
    ids = attempt.position_ids(keep, newest=T)
    agreement(ids, attempt.position_ids(keep)[:, S - T :], en="positions", zh="位置")


@check(en="A layer and a cache equal one pass", zh="分段输入等于一次算完")
def pieces(attempt, draw: Draw):
    """Pieces with the newest positions equal the whole sequence without any."""
    layer = filled(attempt, 8, 3)

    def step(piece, cache):
        end = (cache or 0) + piece.shape[1]
        keep = torch.ones(len(piece), end, dtype=torch.bool)
        return layer(piece, attempt.position_ids(keep, piece.shape[1])), end

    cached_equals_full(layer, step, draw.normal(1, draw.size("T", 1, 6), 3), draw)


@check(en="A position beyond the table is refused", zh="超出表的位置要报错")
def refused(attempt, draw: Draw):
    """With a ValueError: neither wrapped, nor clamped, nor IndexError."""
    layer = filled(attempt, 4, 2)
    wrong = draw.choice("position", [4, -1, 9, None])
    x = torch.zeros(1, 5 if wrong is None else 1, 2, dtype=torch.float64)
    position = None if wrong is None else torch.tensor([[wrong]])
    try:
        layer(x, position)
    except ValueError:
        return
    except Exception as error:
        kind = type(error).__name__
        raise Broken(f"{kind} instead of ValueError", f"抛出 {kind}") from None
    raise Broken("it was accepted without a word", "没有报错")


@check(en="Samples do not mix", zh="样本之间互不影响")
def samples(attempt, draw: Draw):
    """The table is indexed by time, not by sample."""
    layer = filled(attempt, 6, 3)
    x = draw.normal(draw.size("B", 1, 4), draw.size("T", 1, 6), 3)
    batch_independence(layer, x, draw)


@check(en="Padding moves no token", zh="填充不移动词元")
def shifted(attempt, draw: Draw):
    """A left-padded row equals the row alone, even if the padding holds NaN."""
    layer, T = filled(attempt, 9, 2), draw.size("T", 1, 4)
    pads = draw.size("padding on the left", 0, 4)
    x = draw.normal(1, T, 2)
    keep = (torch.arange(pads + T) >= pads)[None]
    long = torch.cat([torch.full((1, pads, 2), math.nan, dtype=torch.float64), x], 1)
    out = layer(long, attempt.position_ids(keep))[:, pads:]
    agreement(out, layer(x), en="the padded row", zh="填充后的那一行")


@check(en="The table is trained", zh="表会被训练")
def trained(attempt, draw: Draw):
    """It is a parameter, its gradient arrives, and only in rows that were used."""
    layer = attempt.LearnedPositions(6, 3).double()
    registered_parameters(layer)
    gradient_flow(layer, draw.normal(2, 4, 3))
    out = layer(draw.normal(1, 4, 3)).sum()
    (grad,) = torch.autograd.grad(out, list(layer.parameters()))
    if grad[4:].any():
        raise Broken("a row that was not used has a gradient", "没用到的行也有梯度")


@check(en="Positions begin as small as words", zh="初值与词嵌入一样小")
def small(attempt, draw: Draw):
    """Normal with a deviation of 0.02."""
    added = attempt.LearnedPositions(100, 100)(torch.zeros(1, 100, 100))
    spread = added.std().item()
    if not 0.018 < spread < 0.022:
        raise Broken(f"the deviation is {spread:.3f}", f"标准差是 {spread:.3f}")


@check(en="Embedding plus row", zh="嵌入加上对应的行")
def oracle(attempt, draw: Draw):
    """Against PyTorch's embedding, on any positions."""
    layer = filled(attempt, 7, 3)
    B, T = draw.size("B", 1, 3), draw.size("T", 1, 5)
    x = draw.normal(B, T, 3)
    position = (draw.normal(B, T).abs() * 3).long().clamp(max=6)
    expected = x + torch.nn.functional.embedding(position, layer.table)
    agreement(layer(x, position), expected, en="the sum", zh="和")


CHECKS = [
    counted,
    padded,
    newest,
    samples,
    refused,
    pieces,
    shifted,
    trained,
    small,
    oracle,
]


def workload(attempt):
    """Return a call whose time and peak memory are compared with the reference's."""
    layer, x = attempt.LearnedPositions(2048, 256), torch.randn(4, 2048, 256)
    return lambda: layer(x)


# --8<-- [end:checks]
