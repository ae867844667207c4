"""Grouped-query attention: H query heads share G key/value heads, none is copied."""

# --8<-- [start:imports]
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
from snippets.decoding.kv_cache import cache_bytes
from snippets.foundations.scaled_dot_product import attend, check_sizes
from snippets.properties.cost import count_flops, largest_bytes, plot_growth, plt


# --8<-- [start:check-groups]
def check_groups(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSV: Tensor, mask_BHTS: Tensor | None
) -> None:
    """Raise a ValueError that names the first argument that does not fit."""
    k_any, v_any = k_BGSK, v_BGSV
    if q_BHTK.ndim == k_BGSK.ndim == v_BGSV.ndim == 4:
        H, G = q_BHTK.shape[1], k_BGSK.shape[1]
        if v_BGSV.shape[1] != G:
            raise ValueError(
                f"value has {v_BGSV.shape[1]} heads, key has {G}: they must agree"
            )
        if G == 0 or H % G:
            raise ValueError(
                f"key has {G} heads, query has {H}: the first must divide the second"
            )
        k_any, v_any = (
            x_any[:, :1].expand(-1, H, -1, -1) for x_any in (k_BGSK, v_BGSV)
        )
    check_sizes(q_BHTK, k_any, v_any, mask_BHTS)


# --8<-- [end:check-groups]


# --8<-- [start:grouped-attend]
def grouped_attend(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSV: Tensor, mask_BHTS: Tensor | None = None
) -> Tensor:
    """Attend with query head h to key/value head h // (H / G) (Ainslie et al. 2023).

    The mask is boolean, True = may attend. Returns (B, H, T, V); a query that may
    see no key gets zeros. Raises ValueError when sizes do not fit.
    """
    check_groups(q_BHTK, k_BGSK, v_BGSV, mask_BHTS)
    H, T = q_BHTK.shape[1:3]
    G = k_BGSK.shape[1]
    # The M = H / G heads of a group ask the same keys: they are M times T queries
    # of one head. Stacking moves queries and masks; keys and values stay as they are.
    q_BGPK = q_BHTK.unflatten(1, (G, H // G)).flatten(2, 3)
    mask_BGPS = None
    if mask_BHTS is not None:
        mask_BGPS = mask_BHTS.unflatten(1, (G, H // G)).flatten(2, 3)
    out_BGPV = attend(q_BGPK, k_BGSK, v_BGSV, mask_BGPS)
    return out_BGPV.unflatten(2, (H // G, T)).flatten(1, 2)


# --8<-- [end:grouped-attend]


# --8<-- [start:pool-heads]
def pool_heads(weight_HKD: Tensor, kv_heads: int) -> Tensor:
    """Average each run of H / kv_heads heads (Ainslie et al. 2023, §2.1)."""
    return weight_HKD.unflatten(0, (kv_heads, -1)).mean(dim=1)


# --8<-- [end:pool-heads]


# --8<-- [start:module]
class GroupedQueryAttention(nn.Module):
    """Self-attention with `kv_heads` key/value heads: 1 is MQA, `heads` is MHA."""

    def __init__(self, model_size: int, heads: int, kv_heads: int) -> None:
        """Make four projections; raise ValueError unless the heads divide evenly."""
        super().__init__()
        if heads < 1 or model_size % heads:
            raise ValueError(
                f"heads is {heads}, model_size is {model_size}: heads must divide it"
            )
        if kv_heads < 1 or heads % kv_heads:
            raise ValueError(
                f"kv_heads is {kv_heads}, heads is {heads}: kv_heads must divide it"
            )
        self.heads, self.kv_heads = heads, kv_heads
        kv_size = kv_heads * (model_size // heads)
        self.to_q = nn.Linear(model_size, model_size, bias=False)
        self.to_k = nn.Linear(model_size, kv_size, bias=False)
        self.to_v = nn.Linear(model_size, kv_size, bias=False)
        self.to_out = nn.Linear(model_size, model_size, bias=False)

    def forward(self, x_BTD: Tensor, mask_BTT: Tensor | None = None) -> Tensor:
        """Attend from x to itself; returns (B, T, D).

        The mask is boolean, True = may attend, the same for all heads. Raises
        ValueError when sizes do not fit.
        """
        if x_BTD.ndim != 3 or x_BTD.shape[2] != self.to_q.in_features:
            raise ValueError(
                f"x has shape {tuple(x_BTD.shape)}, "
                f"expected (batch, positions, {self.to_q.in_features})"
            )
        B, T, H = *x_BTD.shape[:2], self.heads
        mask_BHTT = None
        if mask_BTT is not None:
            if mask_BTT.shape != (B, T, T):
                raise ValueError(
                    f"mask has shape {tuple(mask_BTT.shape)}, expected {(B, T, T)}"
                )
            mask_BHTT = mask_BTT.unsqueeze(1).expand(B, H, T, T)
        q_BHTK = self.to_q(x_BTD).unflatten(2, (H, -1)).transpose(1, 2)
        k_BGTK, v_BGTK = (
            to(x_BTD).unflatten(2, (self.kv_heads, -1)).transpose(1, 2)
            for to in (self.to_k, self.to_v)
        )
        out_BHTK = grouped_attend(q_BHTK, k_BGTK, v_BGTK, mask_BHTT)
        return self.to_out(out_BHTK.transpose(1, 2).flatten(2))


# --8<-- [end:module]


# --8<-- [start:convert]
def convert(layer: GroupedQueryAttention, kv_heads: int) -> GroupedQueryAttention:
    """Return a layer with fewer key/value heads: a start for training, not the end.

    Queries and output stay as they are. Raises ValueError unless kv_heads divides
    the number of key/value heads of `layer`.
    """
    if kv_heads < 1 or layer.kv_heads % kv_heads:
        raise ValueError(
            f"kv_heads is {kv_heads}, the layer has {layer.kv_heads}: "
            "kv_heads must divide it"
        )
    weights = layer.state_dict()
    for name in ("to_k.weight", "to_v.weight"):
        weight_HKD = weights[name].unflatten(0, (layer.kv_heads, -1))
        weights[name] = pool_heads(weight_HKD, kv_heads).flatten(0, 1)
    new = GroupedQueryAttention(layer.to_q.in_features, layer.heads, kv_heads)
    new.to(layer.to_q.weight).load_state_dict(weights)
    return new


# --8<-- [end:convert]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    x_BTD = torch.randn(2, 6, 64)
    for name, kv_heads in (("MHA", 8), ("GQA", 2), ("MQA", 1)):
        layer = GroupedQueryAttention(model_size=64, heads=8, kv_heads=kv_heads)
        print(
            name,
            "output",
            tuple(layer(x_BTD).shape),
            "W_K",
            tuple(layer.to_k.weight.shape),
        )
    # --8<-- [end:first-look]

    # --8<-- [start:pooling]
    full = GroupedQueryAttention(64, 8, 8)
    for kv_heads in (8, 4, 2, 1):
        gap = (convert(full, kv_heads)(x_BTD) - full(x_BTD)).norm() / full(x_BTD).norm()
        print(f"8 heads to {kv_heads}: the output changes by {gap.item():.0%}")
    # --8<-- [end:pooling]

    # --8<-- [start:table]
    print("kv heads   K/V weights, MiB   cache a token, KiB   64 × 8192 tokens, GiB")
    for kv_heads in (32, 8, 1):
        weights = 32 * 2 * 4096 * kv_heads * 128 * 2 / 2**20
        token = cache_bytes(layers=32, kv_heads=kv_heads, size=128)
        print(
            f"{kv_heads:8} {weights:18.0f} {token / 2**10:20.0f}"
            f" {token * 64 * 8192 / 2**30:23.0f}"
        )
    # --8<-- [end:table]

    # --8<-- [start:flops]
    with torch.no_grad():
        for kv_heads in (8, 2, 1):
            layer = GroupedQueryAttention(64, 8, kv_heads)
            flops = count_flops(lambda layer=layer: layer(torch.randn(1, 256, 64)))
            scores = 4 * 256**2 * 64
            print(
                f"{kv_heads} kv heads: {flops} FLOPs, {scores} of them q·k and weights·v"
            )
    # --8<-- [end:flops]

    # --8<-- [start:copied]
    def copied_attend(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSV: Tensor) -> Tensor:
        """Give each query head keys and values of its own."""
        M = q_BHTK.shape[1] // k_BGSK.shape[1]
        k_BHSK = k_BGSK.repeat_interleave(M, dim=1)
        return attend(q_BHTK, k_BHSK, v_BGSV.repeat_interleave(M, dim=1))

    def step_bytes(function: Callable, S: int) -> int:
        """Return the largest tensor of one decoding step with 32 and 8 heads."""
        q_BHTK, k_BGSK = torch.randn(1, 32, 1, 128), torch.randn(1, 8, S, 128)
        return largest_bytes(lambda: function(q_BHTK, k_BGSK, k_BGSK))

    lengths = [512, 1024, 2048, 4096]
    copied = [step_bytes(copied_attend, length) for length in lengths]
    grouped = [step_bytes(grouped_attend, length) for length in lengths]
    for name, found in (("copied", copied), ("grouped", grouped)):
        print(f"{name}: {found[-1] / 2**20:.0f} MiB at 4096 keys")
    plot_growth(lengths, {"K, V copied": (copied, 1), "grouped": (grouped, 1)})
    plt.ylabel("largest tensor of one decoding step, bytes")
    plt.show()
    # --8<-- [end:copied]

    # --8<-- [start:repeat]
    index_1G11 = torch.arange(2.0).reshape(1, 2, 1, 1)
    for method in ("repeat_interleave", "repeat"):
        how = (2, 1) if method == "repeat_interleave" else (1, 2, 1, 1)
        heads = getattr(index_1G11, method)(*how).flatten().int().tolist()
        print(f"{method}: query heads 0 to 3 read kv heads {heads}")
    # --8<-- [end:repeat]

    # --8<-- [start:summed]
    q_BHTK, k_BGTK = torch.randn(2, 8, 6, 8), torch.randn(2, 2, 6, 8)
    sum_BGTK = q_BHTK.unflatten(1, (2, 4)).sum(dim=2)  # queries pooled to 2 heads
    wrong_BHTK = attend(sum_BGTK, k_BGTK, k_BGTK).repeat_interleave(4, dim=1)
    right_BHTK = grouped_attend(q_BHTK, k_BGTK, k_BGTK)
    for name, out_BHTK in (("summed", wrong_BHTK), ("grouped", right_BHTK)):
        gap = (out_BHTK[:, 0] - out_BHTK[:, 1]).abs().max().item()
        print(f"{name}: {tuple(out_BHTK.shape)}, heads 0 and 1 differ by {gap:.2f}")
    # --8<-- [end:summed]

    # --8<-- [start:layout]
    x_BTHK = torch.randn(2, 6, 8, 8)
    changed_BTHK = x_BTHK.clone()
    changed_BTHK[:, 0] += 1
    for name, x_any, changed_any, axis in (
        ("(B, T, H, K)", x_BTHK, changed_BTHK, 1),
        ("(B, H, T, K)", x_BTHK.transpose(1, 2), changed_BTHK.transpose(1, 2), 2),
    ):
        before_any = F.scaled_dot_product_attention(x_any, x_any, x_any, is_causal=True)
        after_any = F.scaled_dot_product_attention(*[changed_any] * 3, is_causal=True)
        moved = (after_any - before_any).narrow(axis, 1, 5).abs().max().item()
        print(f"{name}: token 0 changed, tokens 1 to 5 move by {moved:.2f}")
    # --8<-- [end:layout]
