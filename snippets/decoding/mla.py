"""Multi-head latent attention: cache one small vector a token, rebuild all heads."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
from snippets.decoding.gqa import grouped_attend
from snippets.decoding.kv_cache import KVCache, cache_bytes, causal_mask, rotate
from snippets.foundations.scaled_dot_product import attend
from snippets.properties.cost import count_flops, peak_bytes, plot_growth, plt


# --8<-- [start:check-latent]
def check_latent(
    q_BHTK: Tensor,
    q_BHTU: Tensor,
    kv_BSW: Tensor,
    up_HKR: Tensor,
    up_HVR: Tensor,
    mask_BHTS: Tensor | None = None,
) -> None:
    """Raise a ValueError that names the first argument that does not fit."""
    named = {
        "q": (q_BHTK, 4),
        "rotated q": (q_BHTU, 4),
        "latent": (kv_BSW, 3),
        "up_k": (up_HKR, 3),
        "up_v": (up_HVR, 3),
    }
    for name, (x_any, axes) in named.items():
        if x_any.ndim != axes:
            shape = tuple(x_any.shape)
            raise ValueError(f"{name} has shape {shape}, expected {axes} axes")
    (B, H, T, K), U, R = q_BHTK.shape, q_BHTU.shape[3], up_HKR.shape[2]
    S = kv_BSW.shape[1]
    for name, x_any, expected in (
        ("rotated q", q_BHTU, (B, H, T, U)),
        ("latent", kv_BSW, (B, S, R + U)),
        ("up_k", up_HKR, (H, K, R)),
        ("up_v", up_HVR, (H, up_HVR.shape[1], R)),
        ("mask", mask_BHTS, (B, H, T, S)),
    ):
        if x_any is not None and (shape := tuple(x_any.shape)) != expected:
            raise ValueError(f"{name} has shape {shape}, expected {expected}")
    if mask_BHTS is not None and mask_BHTS.dtype != torch.bool:
        raise ValueError(f"mask has {mask_BHTS.dtype}, expected torch.bool")


# --8<-- [end:check-latent]


# --8<-- [start:clear-hidden]
def clear_hidden(
    q_BHTK: Tensor, kv_BSW: Tensor, mask_BHTS: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Zero queries that see nothing and latents that nobody sees: they may be NaN."""
    if mask_BHTS is None:
        return q_BHTK, kv_BSW
    blind_BHT1 = ~mask_BHTS.any(dim=3, keepdim=True)
    unseen_BS1 = ~mask_BHTS.any(dim=1).any(dim=1).unsqueeze(-1)
    return q_BHTK.masked_fill(blind_BHT1, 0.0), kv_BSW.masked_fill(unseen_BS1, 0.0)


# --8<-- [end:clear-hidden]


# --8<-- [start:expanded]
def expanded_attend(
    q_BHTK: Tensor,
    q_BHTU: Tensor,
    kv_BSW: Tensor,
    up_HKR: Tensor,
    up_HVR: Tensor,
    mask_BHTS: Tensor | None = None,
) -> Tensor:
    """Rebuild keys and values of all heads, then attend (DeepSeek-V2, §2.1).

    kv holds R latent numbers a position, then U of the rotated key, W in all. The
    mask is boolean, True = may attend. Returns (B, H, T, V). Raises ValueError when
    sizes do not fit.
    """
    check_latent(q_BHTK, q_BHTU, kv_BSW, up_HKR, up_HVR, mask_BHTS)
    q_BHTK, kv_BSW = clear_hidden(q_BHTK, kv_BSW, mask_BHTS)
    c_BSR, k_BSU = kv_BSW.split([up_HKR.shape[2], q_BHTU.shape[3]], dim=2)
    k_BHSK = torch.einsum("HKR,BSR->BHSK", up_HKR, c_BSR)
    v_BHSV = torch.einsum("HVR,BSR->BHSV", up_HVR, c_BSR)
    k_BHSU = k_BSU.unsqueeze(1).expand(-1, len(up_HKR), -1, -1)  # one for all heads
    q_any, k_any = torch.cat([q_BHTK, q_BHTU], 3), torch.cat([k_BHSK, k_BHSU], 3)
    return attend(q_any, k_any, v_BHSV, mask_BHTS)


# --8<-- [end:expanded]


# --8<-- [start:absorbed]
def absorbed_attend(
    q_BHTK: Tensor,
    q_BHTU: Tensor,
    kv_BSW: Tensor,
    up_HKR: Tensor,
    up_HVR: Tensor,
    mask_BHTS: Tensor | None = None,
) -> Tensor:
    """Take the queries to the latents instead: the same result as `expanded_attend`.

    All heads share the cached vectors as keys, and their first R numbers as values.
    """
    check_latent(q_BHTK, q_BHTU, kv_BSW, up_HKR, up_HVR, mask_BHTS)
    q_BHTK, kv_BSW = clear_hidden(q_BHTK, kv_BSW, mask_BHTS)
    q_BHTR = torch.einsum("BHTK,HKR->BHTR", q_BHTK, up_HKR)
    q_BHTW = torch.cat([q_BHTR, q_BHTU], dim=3)
    # Attention divides by the root of R + U, but the model was trained with K + U.
    q_BHTW = q_BHTW * math.sqrt(q_BHTW.shape[3] / (q_BHTK.shape[3] + q_BHTU.shape[3]))
    kv_B1SW = kv_BSW.unsqueeze(1)
    c_B1SR = kv_B1SW[..., : q_BHTR.shape[3]]
    out_BHTR = grouped_attend(q_BHTW, kv_B1SW, c_B1SR, mask_BHTS)
    return torch.einsum("BHTR,HVR->BHTV", out_BHTR, up_HVR)


# --8<-- [end:absorbed]


# --8<-- [start:layer]
class LatentAttention(nn.Module):
    """Causal MLA with decoupled rotary positions (DeepSeek-V2, §2.1)."""

    def __init__(
        self, model_size: int, heads: int, size: int, rotated: int, rank: int
    ) -> None:
        """Make the weights: heads of size K and V, U more that rotate, rank R."""
        super().__init__()
        if heads < 1 or rotated % 2:
            raise ValueError(
                f"heads is {heads}, rotated is {rotated}: "
                "expected at least 1 and an even size"
            )
        self.sizes, self.rank = [size, rotated], rank
        self.to_q = nn.Linear(model_size, heads * (size + rotated), bias=False)
        self.to_latent = nn.Linear(model_size, rank + rotated, bias=False)
        self.norm = nn.RMSNorm(rank, eps=1e-6)
        self.up_HKR = nn.Parameter(torch.randn(heads, size, rank) / math.sqrt(rank))
        self.up_HVR = nn.Parameter(torch.randn(heads, size, rank) / math.sqrt(rank))
        self.to_out = nn.Linear(heads * size, model_size, bias=False)

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """Allocate R + U numbers a position: one head of keys, values of size 0."""
        width, dtype = self.rank + self.sizes[1], self.up_HKR.dtype
        return KVCache(batch, 1, capacity, width, dtype, value_size=0)

    def forward(self, x_BTD: Tensor, cache: KVCache | None = None) -> Tensor:
        """Attend to x and to what the cache holds already; returns (B, T, D).

        Expanded in one pass; absorbed with a cache, which `new_cache` makes. Raises
        ValueError when x does not fit, or the cache is full.
        """
        if x_BTD.ndim != 3 or x_BTD.shape[2] != self.to_q.in_features:
            raise ValueError(
                f"x has shape {tuple(x_BTD.shape)}, "
                f"expected (batch, positions, {self.to_q.in_features})"
            )
        B, T, H = *x_BTD.shape[:2], len(self.up_HKR)
        start = 0 if cache is None else cache.length
        q_BHTE = self.to_q(x_BTD).unflatten(2, (H, -1)).transpose(1, 2)
        q_BHTK, q_BHTU = q_BHTE.split(self.sizes, dim=3)
        c_BTR, k_BTU = self.to_latent(x_BTD).split([self.rank, self.sizes[1]], dim=2)
        k_B1TU = rotate(k_BTU.unsqueeze(1), start)
        kv_B1TW = torch.cat([self.norm(c_BTR).unsqueeze(1), k_B1TU], dim=3)
        if cache is None:
            kv_B1SW, attend_to = kv_B1TW, expanded_attend
        else:  # no values beside the latents
            kv_B1SW, _ = cache.append(kv_B1TW, kv_B1TW[..., :0])
            attend_to = absorbed_attend
        S = kv_B1SW.shape[2]
        mask_BHTS = causal_mask(T, S).to(x_BTD.device).expand(B, H, T, S)
        out_BHTV = attend_to(
            q_BHTK,
            rotate(q_BHTU, start),
            kv_B1SW.squeeze(1),
            self.up_HKR,
            self.up_HVR,
            mask_BHTS,
        )
        return self.to_out(out_BHTV.transpose(1, 2).flatten(2))


# --8<-- [end:layer]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    layer = LatentAttention(model_size=64, heads=8, size=16, rotated=8, rank=24)
    x_BTD, cache = torch.randn(2, 10, 64), layer.new_cache(2, 10)
    with torch.no_grad():
        piece_any = [
            layer(part_any, cache) for part_any in x_BTD.split([7, 1, 1, 1], 1)
        ]
        gap = (torch.cat(piece_any, dim=1) - layer(x_BTD)).abs().max().item()
    print(f"absorbed in pieces against expanded in one pass: {gap:.0e}")
    print(f"a token in the cache: {cache.k_BHSK.shape[3]} numbers, MHA {2 * 8 * 16}")
    # --8<-- [end:first-look]

    # --8<-- [start:table]
    heads, size, rank, rotated = 128, 128, 512, 64
    print("numbers a token and layer:")
    for name, numbers in (
        ("MHA, 128 heads", cache_bytes(1, heads, size, each=1)),
        ("GQA, 8 kv heads", cache_bytes(1, 8, size, each=1)),
        ("MLA", rank + rotated),
        ("MQA", cache_bytes(1, 1, size, each=1)),
    ):
        share = numbers / cache_bytes(1, heads, size, each=1)
        print(
            f"{name:16} {numbers:6} = {numbers / (2 * size):6.2f} kv heads, {share:.1%}"
        )
    print(f"without the rotated key: {rank / (rank + rotated):.0%} of the truth")
    # --8<-- [end:table]

    # --8<-- [start:flops]
    def draw(T: int, S: int) -> list[Tensor]:
        """Return queries, latents and weights of 16 heads of size 64 + 32."""
        shapes = (
            (1, 16, T, 64),
            (1, 16, T, 32),
            (1, S, 160),
            (16, 64, 128),
            (16, 64, 128),
        )
        return [torch.randn(shape) for shape in shapes]

    for name, length in (("decode 1 token", 1), ("prefill", 1024)):
        input_any = draw(length, 1024)
        expanded = count_flops(lambda x_any=input_any: expanded_attend(*x_any))
        absorbed = count_flops(lambda x_any=input_any: absorbed_attend(*x_any))
        print(
            f"{name}: {expanded / 1e6:.1f} MFLOPs expanded, {absorbed / 1e6:.1f} absorbed"
        )
    # --8<-- [end:flops]

    # --8<-- [start:growth]
    lengths = [512, 1024, 2048, 4096]
    input_any = [draw(1, length) for length in lengths]
    curves = {
        name: [peak_bytes(lambda x_any=x_any, f=f: f(*x_any)) for x_any in input_any]
        for name, f in (("expanded", expanded_attend), ("absorbed", absorbed_attend))
    }
    plot_growth(lengths, {name: (found, 1) for name, found in curves.items()})
    plt.ylabel("peak memory of a decoding step, bytes")
    plt.show()
    # --8<-- [end:growth]

    # --8<-- [start:wrong-scale]
    input_any = draw(3, 5)
    right_any = expanded_attend(*input_any)
    for name, divisor in (("R + U", 128 + 32), ("K", 64), ("K + U", 64 + 32)):
        factor = math.sqrt((64 + 32) / divisor)
        scaled_any = [q_any * factor for q_any in input_any[:2]]
        off_any = absorbed_attend(*scaled_any, *input_any[2:]) - right_any
        off = off_any.norm().item() / right_any.norm().item()
        print(f"divided by the root of {name} = {divisor}: off by {off:.0%}")
    # --8<-- [end:wrong-scale]

    # --8<-- [start:rotated-latent]
    q_111K, c_111R, up_RK = (
        torch.randn(1, 1, 1, 16),
        torch.randn(1, 1, 1, 16),
        torch.randn(16, 16),
    )
    k_111K = c_111R @ up_RK
    for t, s in ((4, 1), (104, 101)):
        latent = (rotate(q_111K, t) * (rotate(c_111R, s) @ up_RK)).sum().item()
        key = (rotate(q_111K, t) * rotate(k_111K, s)).sum().item()
        print(f"t = {t}, s = {s}: latent rotated {latent:.3f}, key rotated {key:.3f}")
    # --8<-- [end:rotated-latent]
