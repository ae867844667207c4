"""A KV cache: a sequence fed in pieces gives what one pass over it gives."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
from snippets.foundations.scaled_dot_product import attend
from snippets.properties.cost import count_flops, peak_bytes, plot_growth, plt


# --8<-- [start:rotate]
def rotate(x_BHTK: Tensor, start: int = 0, base: float = 10000.0) -> Tensor:
    """Turn each pair (i, i + K/2) by its position / base^(2i/K) (Su et al. 2021).

    The first of the T positions is `start`. Returns (B, H, T, K).
    """
    T, K = x_BHTK.shape[2:]
    # In float64: bfloat16 cannot tell position 257 from 256.
    real = {"dtype": torch.float64, "device": x_BHTK.device}
    pos_T1 = torch.arange(start, start + T, **real).unsqueeze(1)
    angle_TK = pos_T1 / base ** (torch.arange(K, **real) % (K // 2) * 2 / K)
    swapped_BHTK = torch.cat([-x_BHTK[..., K // 2 :], x_BHTK[..., : K // 2]], dim=-1)
    cos_TK, sin_TK = angle_TK.cos().to(x_BHTK), angle_TK.sin().to(x_BHTK)
    return x_BHTK * cos_TK + swapped_BHTK * sin_TK


# --8<-- [end:rotate]


# --8<-- [start:check-piece]
def check_piece(cache: "KVCache", k_BHTK: Tensor, v_BHTV: Tensor) -> None:
    """Raise a ValueError unless keys and values can be written into the cache."""
    (B, H, _, K), V = cache.k_BHSK.shape, cache.v_BHSV.shape[3]
    k, v = tuple(k_BHTK.shape), tuple(v_BHTV.shape)
    if len(k) != 4 or (k[0], k[1], k[3]) != (B, H, K):
        raise ValueError(f"key has shape {k}, expected ({B}, {H}, positions, {K})")
    if v != (*k[:3], V):
        raise ValueError(f"value has shape {v}, expected {(*k[:3], V)}")
    for name, new_any in (("key", k_BHTK), ("value", v_BHTV)):
        if new_any.dtype != cache.k_BHSK.dtype:
            raise ValueError(
                f"{name} has {new_any.dtype}, the cache has {cache.k_BHSK.dtype}: "
                "they must agree"
            )
        if new_any.requires_grad:
            raise ValueError(
                f"{name} requires a gradient, expected none: "
                "fill a cache under torch.no_grad()"
            )


# --8<-- [end:check-piece]


# --8<-- [start:cache]
class KVCache:
    """Keys and values of one layer, in room that is allocated once."""

    def __init__(
        self,
        batch: int,
        heads: int,
        capacity: int,
        size: int,
        dtype: torch.dtype = torch.float32,
        value_size: int | None = None,
    ) -> None:
        """Allocate room for `capacity` positions; `length` of them are filled."""
        value_size = size if value_size is None else value_size
        self.k_BHSK = torch.zeros(batch, heads, capacity, size, dtype=dtype)
        self.v_BHSV = torch.zeros(batch, heads, capacity, value_size, dtype=dtype)
        self.length = 0

    def append(self, k_BHTK: Tensor, v_BHTV: Tensor) -> tuple[Tensor, Tensor]:
        """Write T new positions; return all so far, (B, H, S, K) and (B, H, S, V).

        The results are views of the cache, not copies. Raises ValueError, and
        leaves the cache as it was, when something does not fit.
        """
        check_piece(self, k_BHTK, v_BHTV)
        T, capacity = k_BHTK.shape[2], self.k_BHSK.shape[2]
        start, stop = self.length, self.length + T
        if stop > capacity:
            raise ValueError(
                f"key has {T} positions, the cache has room for {capacity - start} "
                f"more of {capacity}: it is full"
            )
        self.k_BHSK[:, :, start:stop] = k_BHTK
        self.v_BHSV[:, :, start:stop] = v_BHTV
        self.length = stop
        return self.k_BHSK[:, :, :stop], self.v_BHSV[:, :, :stop]


# --8<-- [end:cache]


# --8<-- [start:causal-mask]
def causal_mask(T: int, S: int) -> Tensor:
    """Return a mask (T, S) in which the last of T queries sees all of S keys."""
    return torch.ones(T, S, dtype=torch.bool).tril(S - T)


# --8<-- [end:causal-mask]


# --8<-- [start:layer]
class CachedAttention(nn.Module):
    """Causal self-attention with rotary positions, in one pass or in pieces."""

    def __init__(self, model_size: int, heads: int) -> None:
        """Make four projections; raise ValueError unless the size of a head is even."""
        super().__init__()
        if heads < 1 or model_size % (2 * heads):
            raise ValueError(
                f"heads is {heads}, model_size is {model_size}: "
                "each head must get an even share"
            )
        self.heads = heads
        self.to_q = nn.Linear(model_size, model_size, bias=False)
        self.to_k = nn.Linear(model_size, model_size, bias=False)
        self.to_v = nn.Linear(model_size, model_size, bias=False)
        self.to_out = nn.Linear(model_size, model_size, bias=False)

    def forward(self, x_BTD: Tensor, cache: KVCache | None = None) -> Tensor:
        """Attend to x and to what the cache holds already; returns (B, T, D).

        Without a cache, x is the whole sequence; with one, x continues it and is
        added to it. Raises ValueError when x does not fit, or the cache is full.
        """
        if x_BTD.ndim != 3 or x_BTD.shape[2] != self.to_q.in_features:
            raise ValueError(
                f"x has shape {tuple(x_BTD.shape)}, "
                f"expected (batch, positions, {self.to_q.in_features})"
            )
        B, T, H = *x_BTD.shape[:2], self.heads
        q_BHTK, k_BHTK, v_BHTK = (
            to(x_BTD).unflatten(2, (H, -1)).transpose(1, 2)
            for to in (self.to_q, self.to_k, self.to_v)
        )
        start = 0 if cache is None else cache.length
        q_BHTK, k_BHTK = rotate(q_BHTK, start), rotate(k_BHTK, start)
        if cache is None:
            k_BHSK, v_BHSK = k_BHTK, v_BHTK
        else:
            k_BHSK, v_BHSK = cache.append(k_BHTK, v_BHTK)
        S = k_BHSK.shape[2]
        mask_BHTS = causal_mask(T, S).to(x_BTD.device).expand(B, H, T, S)
        out_BHTK = attend(q_BHTK, k_BHSK, v_BHSK, mask_BHTS)
        return self.to_out(out_BHTK.transpose(1, 2).flatten(2))


# --8<-- [end:layer]


# --8<-- [start:prefill]
def prefill(layer: nn.Module, x_BTD: Tensor, cache: KVCache, chunk: int) -> Tensor:
    """Feed a prompt in chunks of at most `chunk` positions; returns (B, T, D)."""
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1")
    return torch.cat([layer(x_BCD, cache) for x_BCD in x_BTD.split(chunk, 1)], dim=1)


# --8<-- [end:prefill]


# --8<-- [start:cache-bytes]
def cache_bytes(layers: int, kv_heads: int, size: int, each: int = 2) -> int:
    """Return the bytes that one token takes in the cache, `each` for a number."""
    return 2 * layers * kv_heads * size * each


# --8<-- [end:cache-bytes]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    layer = CachedAttention(model_size=64, heads=4)
    x_BTD = torch.randn(2, 10, 64)
    cache = KVCache(batch=2, heads=4, capacity=16, size=16)
    with torch.no_grad():
        piece_any = [prefill(layer, x_BTD[:, :7], cache, chunk=3)]
        piece_any += [layer(x_BTD[:, t : t + 1], cache) for t in range(7, 10)]
        gap = (torch.cat(piece_any, dim=1) - layer(x_BTD)).abs().max()
    print(f"prefill 3 + 3 + 1, decode 1 + 1 + 1: {cache.length} positions in the cache")
    print(f"largest difference from one pass: {gap.item():.0e}")
    # --8<-- [end:first-look]

    # --8<-- [start:full]
    try:
        with torch.no_grad():
            prefill(layer, x_BTD, cache, chunk=10)
    except ValueError as error:
        print(error)
    # --8<-- [end:full]

    # --8<-- [start:work]
    def decode(N: int, cached: bool) -> None:
        """Produce N outputs, one at a time."""
        cache = KVCache(1, 4, N, 16) if cached else None
        for t in range(N):
            layer(x_1ND[:, t : t + 1] if cached else x_1ND[:, : t + 1], cache)

    print("  N   projected rows    q·k of last queries   MFLOPs")
    for N in (8, 16, 64):
        x_1ND = torch.randn(1, N, 64)
        triangle = N * (N + 1) // 2
        for name, cached, rows in (("without", False, triangle), ("with", True, N)):
            with torch.no_grad():
                flops = count_flops(lambda n=N, c=cached: decode(n, c))
            print(f"{N:3}   {rows:6} {name:8}   {triangle:6} {flops / 1e6:20.1f}")
    # --8<-- [end:work]

    # --8<-- [start:model-bytes]
    for name, kv_heads in (
        ("LLaMA 7B,  32 kv heads", 32),
        ("Llama 3 8B, 8 kv heads", 8),
    ):
        per_token = cache_bytes(layers=32, kv_heads=kv_heads, size=128)
        whole = per_token * 8192 / 2**30
        print(f"{name}: {per_token // 1024} KiB a token, 8192 tokens {whole:.0f} GiB")
    # --8<-- [end:model-bytes]

    # --8<-- [start:growth]
    lengths, whole, chunked = [128, 256, 512, 1024], [], []
    layer = CachedAttention(model_size=16, heads=1)
    with torch.no_grad():
        for length in lengths:
            x_any = torch.randn(1, length, 16)
            for chunk, peaks in ((length, whole), (32, chunked)):
                cache = KVCache(1, 1, length, 16)
                peaks.append(
                    peak_bytes(
                        lambda x_any=x_any, cache=cache, C=chunk: prefill(
                            layer, x_any, cache, C
                        )
                    )
                )
    plot_growth(
        lengths, {"prompt in one pass": (whole, 2), "in chunks of 32": (chunked, 1)}
    )
    plt.ylabel("peak memory of prefill, bytes")
    plt.show()
    # --8<-- [end:growth]

    # --8<-- [start:top-left]
    q_any, k_any = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 5, 16)
    seen_any = F.scaled_dot_product_attention(
        q_any, k_any, torch.eye(5).expand(1, 1, 5, 5), is_causal=True
    )
    print("is_causal=True, weights of a decode step:", seen_any.flatten().tolist())
    print("causal_mask(1, 5):", causal_mask(1, 5).int().tolist())
    print("causal_mask(2, 5):", causal_mask(2, 5).int().tolist())
    # --8<-- [end:top-left]

    # --8<-- [start:no-mask]
    q_any, k_any, v_any = torch.randn(3, 1, 1, 5, 16)
    right_any = attend(q_any, k_any, v_any, causal_mask(5, 5).expand(1, 1, 5, 5))
    wrong_any = attend(q_any, k_any, v_any)  # "there is a cache, so no mask"
    off_any = (right_any - wrong_any).abs().amax(dim=3).flatten() > 1e-6
    print("prefill of 5 without a mask, wrong positions:", off_any.int().tolist())
    # --8<-- [end:no-mask]
