"""Choosing: what each way of attending costs, and what it leaves in the cache."""

# --8<-- [start:imports]
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.decoding.gqa import grouped_attend
from snippets.efficient.chunked import chunked_attention
from snippets.efficient.flash_forward import flash_forward
from snippets.foundations.scaled_dot_product import attend
from snippets.properties.cost import count_flops, peak_bytes
from snippets.properties.error_budget import largest_error
from snippets.sparse.sliding_window import window_attention


# --8<-- [start:cache]
class Model(NamedTuple):
    """What decides about the cache of a model: numbers a token leaves in a layer."""

    name: str
    kind: str
    layers: int
    numbers: int
    window: int = 0  # of the layers with a sliding window
    windowed: int = 0  # how many layers have one


def keys_and_values(kv_heads: int, size: int) -> int:
    """Return the numbers of one token in one layer: a key and a value for each head."""
    return 2 * kv_heads * size


def cache_bytes(model: Model, tokens: int, each: int = 2) -> int:
    """Return the bytes of one sequence's cache, `each` for a number.

    A layer with a window keeps no more than its window. Raises ValueError for less
    than one token.
    """
    if tokens < 1:
        raise ValueError(f"tokens is {tokens}, expected at least 1")
    full = (model.layers - model.windowed) * tokens
    windowed = model.windowed * min(tokens, model.window)
    return (full + windowed) * model.numbers * each


# --8<-- [end:cache]


# --8<-- [start:compare]
def compare(
    call: Callable[[Tensor], Tensor], exact: Callable[[Tensor], Tensor], T: int
) -> tuple[int, int, float]:
    """Measure a way of attending to itself on 4 heads of T positions and size 32.

    Returns FLOPs, the peak bytes of what one call makes, and the largest difference
    from `exact` in float64.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    x_BHTK = torch.randn(1, 4, T, 32, generator=generator, device="cpu")
    x_BHTK = x_BHTK.to(torch.get_default_device())
    with torch.no_grad():
        flops = count_flops(lambda: call(x_BHTK))
        peak = peak_bytes(lambda: call(x_BHTK))
        return flops, peak, largest_error(call(x_BHTK), exact(x_BHTK.double()))


def causal_mask(x_BHTK: Tensor) -> Tensor:
    """Return the full-size causal mask (B, H, T, T) of a self-attention."""
    B, H, T, _ = x_BHTK.shape
    mask_TT = torch.ones(T, T, dtype=torch.bool, device=x_BHTK.device).tril()
    return mask_TT.expand(B, H, T, T)


# --8<-- [end:compare]


if __name__ == "__main__":
    # --8<-- [start:models]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    models = [
        Model("LLaMA 7B", "MHA", 32, keys_and_values(32, 128)),
        Model("Falcon 7B", "MQA", 32, keys_and_values(1, 64)),
        Model("Llama 3 8B", "GQA", 32, keys_and_values(8, 128)),
        Model("Mistral 7B", "GQA + window", 32, keys_and_values(8, 128), 4096, 32),
        Model("Gemma 2 2B", "GQA + window", 26, keys_and_values(4, 256), 4096, 13),
        Model("gpt-oss-120b", "GQA + window", 36, keys_and_values(8, 64), 128, 18),
        Model("DeepSeek-V3", "MLA", 61, 512 + 64),
    ]
    lengths = (4096, 32768, 131072)
    print("model         kind          KiB/token     GiB at 4k     32k    128k")
    for model in models:
        first = cache_bytes(model, 1) / 2**10
        sizes = " ".join(f"{cache_bytes(model, n) / 2**30:7.2f}" for n in lengths)
        print(f"{model.name:13} {model.kind:12} {first:10.1f}      {sizes}")
    # --8<-- [end:models]

    # --8<-- [start:measured]
    def dense(x_BHTK: Tensor) -> Tensor:
        """Attend causally with every weight at once."""
        return attend(x_BHTK, x_BHTK, x_BHTK, causal_mask(x_BHTK))

    def pairs(x_BHTK: Tensor) -> Tensor:
        """Keep every second key and value head: four query heads, two of those."""
        k_BGTK = x_BHTK[:, ::2]
        return grouped_attend(x_BHTK, k_BGTK, k_BGTK, causal_mask(x_BHTK))

    ways = {
        "dense": dense,
        "chunked, 128": lambda x_BHTK: chunked_attention(
            x_BHTK, x_BHTK, x_BHTK, causal_mask(x_BHTK)
        ),
        "flash, tiles": lambda x_BHTK: flash_forward(
            x_BHTK, x_BHTK, x_BHTK, causal=True
        )[0],
        "PyTorch's SDPA": lambda x_BHTK: F.scaled_dot_product_attention(
            x_BHTK, x_BHTK, x_BHTK, is_causal=True
        ),
        "grouped, 2 of 4": pairs,
        "window 128": lambda x_BHTK: window_attention(x_BHTK, x_BHTK, x_BHTK, 128),
    }
    print("T = 1024          FLOPs  of dense   peak MiB   differs from dense by")
    whole, _, rounding = compare(dense, dense, 1024)
    for name, way in ways.items():
        flops, peak, off = compare(way, dense, 1024)
        same = "rounding" if off <= 4 * rounding else f"{off:.2f}"
        counted = f"{flops / 1e6:6.1f} M  {flops / whole:7.2f}"
        counted = counted if flops else "    not counted "
        print(f"{name:15} {counted}  {peak / 2**20:9.2f}   {same}")
    # --8<-- [end:measured]
