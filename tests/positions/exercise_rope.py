"""Exercise: rotary position embedding."""

from snippets.properties.judge import Broken, Draw, check
from snippets.properties.kit import agreement, cached_equals_full, gap

# isort: split
# --8<-- [start:checks]
import math

import torch
import torch.nn.functional as F


def turned(x, pos, base=10000.0):
    """Neighbors as complex numbers, times exp(i·pos·θ): (…, J), in float64."""
    J = x.shape[-1] // 2
    pairs = torch.view_as_complex(x.double().unflatten(-1, (J, 2)).contiguous())
    rate = torch.exp(-math.log(base) * torch.arange(J, dtype=torch.float64) / J)
    return pairs * torch.exp(1j * pos.double()[:, None, :, None] * rate)


def interleaved(x, pos):
    """The complex result as neighbors."""
    return torch.view_as_real(turned(x, pos)).flatten(-2)


def split(x, pos):
    """The complex result of half-split input: real parts, then imaginary parts."""
    out = turned(torch.stack(x.chunk(2, -1), -1).flatten(-2), pos)
    return torch.cat((out.real, out.imag), -1)


@check(en="Frequencies fall from 1 by the base", zh="频率从 1 开始按底数递减")
def rates(attempt, draw: Draw):
    """base^(-2j / size)."""
    J = draw.size("pairs", 1, 6)
    base = draw.choice("base", [10000.0, 100.0, 500000.0])
    power = torch.arange(J, device=torch.get_default_device()).double() / J
    expected = torch.exp(-math.log(base) * power)
    agreement(attempt.frequencies(2 * J, base).double(), expected, "theta", "theta")


@check(en="Scores depend on the offset, and only on it", zh="得分由位置差决定")
def relative(attempt, draw: Draw):
    """Shifting both positions changes nothing, shifting one does."""
    J = draw.size("pairs", 1, 4)
    m, n = draw.size("m", 0, 40), draw.size("n", 0, 40)
    shift, theta = draw.size("shift", 1, 900), attempt.frequencies(2 * J)
    q, k = draw.normal(2, 1, 1, 1, 2 * J)
    for rotate in (attempt.rotate_pairs, attempt.rotate_halves):

        def score(m, n, rotate=rotate):
            at = [torch.tensor([[p]]) for p in (m, n)]
            return (rotate(q, at[0], theta) * rotate(k, at[1], theta)).sum()

        if gap(score(m, n), score(m + shift, n + shift)) > 1e-6:
            raise Broken(
                f"{rotate.__name__}: the score changed with both positions shifted",
                f"{rotate.__name__}：两个位置一起平移，得分却变了",
            )
        if gap(score(m, n), score(m + 1, n)) == 0:
            raise Broken(
                f"{rotate.__name__}: another offset gives the same score",
                f"{rotate.__name__}：位置差变了，得分却不变",
            )


@check(en="rotate_pairs multiplies by exp(i·pos·θ)", zh="rotate_pairs 等于复数乘法")
def pairs(attempt, draw: Draw):
    """Channels 2j and 2j + 1 are a complex number."""
    B, T, J = draw.size("B", 1, 2), draw.size("T", 1, 4), draw.size("pairs", 1, 4)
    x, pos = draw.normal(B, 2, T, 2 * J), (draw.normal(B, T) * 100).long()
    out = attempt.rotate_pairs(x, pos, attempt.frequencies(2 * J))
    agreement(out, interleaved(x, pos), "the result", "结果")


@check(en="rotate_halves multiplies by exp(i·pos·θ)", zh="rotate_halves 等于复数乘法")
def halves(attempt, draw: Draw):
    """Channels j and j + K/2 are a complex number."""
    B, T, J = draw.size("B", 1, 2), draw.size("T", 1, 4), draw.size("pairs", 1, 4)
    x, pos = draw.normal(B, 2, T, 2 * J), (draw.normal(B, T) * 100).long()
    out = attempt.rotate_halves(x, pos, attempt.frequencies(2 * J))
    agreement(out, split(x, pos), "the result", "结果")


@check(en="Half precision stays precise at far positions", zh="半精度在远处仍然准确")
def precise(attempt, draw: Draw):
    """A position above 256 has no bfloat16 of its own."""
    dtype = draw.choice("dtype", [torch.bfloat16, torch.float16])
    x = draw.normal(1, 1, 4, 8, dtype=dtype)
    pos = torch.tensor([[1, 257, 1001, 3999]])
    for rotate, exact in (
        (attempt.rotate_pairs, interleaved),
        (attempt.rotate_halves, split),
    ):
        out = rotate(x, pos, attempt.frequencies(8))
        agreement(out, exact(x, pos).to(dtype), "the result", "结果")
        if out.dtype != dtype:
            raise Broken(
                f"{dtype} came in and {out.dtype} out",
                f"输入是 {dtype}，输出却是 {out.dtype}",
            )


@check(en="Reordered projections give the same scores", zh="重排投影后得分不变")
def conversion(attempt, draw: Draw):
    """Interleaved weights, converted, serve the half-split rotation."""
    H, T, J = draw.size("H", 1, 3), draw.size("T", 1, 4), draw.size("pairs", 1, 4)
    x, theta = draw.normal(1, T, 5), attempt.frequencies(2 * J)
    w_q, w_k = draw.normal(2, H * 2 * J, 5)
    pos = torch.arange(T)[None] + 3

    def scores(rotate, *weights):
        q, k = (
            rotate((x @ w.T).unflatten(2, (H, -1)).transpose(1, 2), pos, theta)
            for w in weights
        )
        return q @ k.mT

    turned = [attempt.rows_to_halves(w, H) for w in (w_q, w_k)]
    agreement(
        scores(attempt.rotate_halves, *turned),
        scores(attempt.rotate_pairs, w_q, w_k),
        "the score",
        "得分",
    )


@check(en="Padding takes no position", zh="填充不占位置")
def numbered(attempt, draw: Draw):
    """Counting begins at the first token of each row."""
    left, T = draw.size("left padding", 0, 3), draw.size("T", 1, 4)
    right = draw.size("right padding", 0, 2)
    row = [-1] * left + list(range(T)) + [-1] * right
    pos = attempt.positions(torch.tensor([row]) >= 0)
    if pos.tolist() != [row]:
        raise Broken(
            f"{pos.tolist()[0]} came for {row}", f"应为 {row}，得到 {pos.tolist()[0]}"
        )


@check(en="Values are averaged as they are", zh="值原样取平均")
def values(attempt, draw: Draw):
    """Equal values come back."""
    T, start = draw.size("T", 1, 4), draw.size("start", 1, 50)
    q, k = draw.normal(2, 1, 2, T, 4)
    v = draw.normal(4).expand(1, 2, T, 4)
    pos = torch.arange(T)[None] + start
    out, _ = attempt.rotary_attention(q, k, v, pos, attempt.frequencies(4))
    agreement(out, v, "the average of equal values", "相同的值取平均")


@check(en="In pieces equals in one go", zh="分段等于一次算完")
def cached(attempt, draw: Draw):
    """Any cuts, with left padding."""
    T, left = draw.size("T", 1, 5), draw.size("left padding", 0, 2)
    q, k, v = draw.normal(3, 1, 2, T, 4)
    pos = (torch.arange(T)[None] - left).clamp(min=-1)
    theta = attempt.frequencies(4)

    def step(pos, cache):
        start, kept = cache or (0, None)
        new = slice(start, start + pos.shape[1])
        three = (one[:, :, new] for one in (q, k, v))
        out, kept = attempt.rotary_attention(*three, pos, theta, kept)
        return out.transpose(1, 2), (new.stop, kept)

    def whole(pos):
        return attempt.rotary_attention(q, k, v, pos, theta)[0].transpose(1, 2)

    cached_equals_full(whole, step, pos, draw)


@check(en="The cache holds rotated keys", zh="缓存里是旋转过的键")
def kept(attempt, draw: Draw):
    """Each key is rotated once, by its own position."""
    T, start = draw.size("T", 1, 4), draw.size("start", 0, 50)
    q, k, v = draw.normal(3, 1, 2, T, 4)
    pos = torch.arange(T)[None] + start
    _, cache = attempt.rotary_attention(q, k, v, pos, attempt.frequencies(4))
    agreement(cache[0], split(k, pos), "the cached key", "缓存的键")


@check(en="Agrees with PyTorch's attention", zh="与 PyTorch 的注意力一致")
def oracle(attempt, draw: Draw):
    """SDPA on vectors rotated by complex numbers."""
    B, T, left = (
        draw.size("B", 1, 2),
        draw.size("T", 1, 5),
        draw.size("left padding", 0, 2),
    )
    q, k, v = draw.normal(3, B, 2, T, 4)
    pos = (torch.arange(T) - left).clamp(min=-1).expand(B, T)
    seen = (pos[:, None] >= 0) & (pos[:, None] <= pos[..., None])
    expected = F.scaled_dot_product_attention(
        split(q, pos), split(k, pos), v, seen[:, None]
    )
    out, _ = attempt.rotary_attention(q, k, v, pos, attempt.frequencies(4))
    agreement(out, expected, "the output", "输出")


CHECKS = [
    rates,
    relative,
    pairs,
    halves,
    precise,
    conversion,
    numbered,
    values,
    cached,
    kept,
    oracle,
]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    q, k, v = torch.randn(3, 1, 4, 512, 32)
    pos, theta = torch.arange(512)[None], attempt.frequencies(32)
    return lambda: attempt.rotary_attention(q, k, v, pos, theta)


# --8<-- [end:checks]
