"""Gated attention: each query turns the output of its heads down by a sigmoid gate."""

# --8<-- [start:imports]
from functools import partial

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
from snippets.foundations.scaled_dot_product import attend, check_sizes
from snippets.properties.cost import count_flops, plot_growth, seconds
from snippets.transformer.multi_head import (
    MultiHeadAttention,
    merge_heads,
    split_heads,
)


# --8<-- [start:split-packed]
def split_packed(x_BTN: Tensor, heads: int, gates: int) -> tuple[Tensor, Tensor]:
    """Cut a packed projection into queries and gates, head by head.

    The last axis holds the query of head 0, its gates, the query of head 1, its gates,
    and so on. Returns queries (B, H, T, K) and gates (B, H, T, gates).
    """
    packed_BHTR = split_heads(x_BTN, heads)
    return packed_BHTR[..., :-gates], packed_BHTR[..., -gates:]


# --8<-- [end:split-packed]


# --8<-- [start:layer]
class GatedAttention(nn.Module):
    """Self-attention with an output gate from its input (Qiu et al. 2025)."""

    def __init__(self, model_size: int, heads: int, gates: int) -> None:
        """Make projections for 1 gate a head, or one for each of the K dimensions.

        Raises ValueError unless heads divides model_size and gates is 1 or K.
        """
        super().__init__()
        if heads < 1 or model_size % heads:
            raise ValueError(
                f"heads is {heads}, model_size is {model_size}: heads must divide it"
            )
        head_size = model_size // heads
        if gates not in (1, head_size):
            raise ValueError(f"gates is {gates}, expected 1 or {head_size} for a head")
        self.heads, self.gates = heads, gates
        self.to_q_and_gate = nn.Linear(
            model_size, model_size + heads * gates, bias=False
        )
        self.to_k = nn.Linear(model_size, model_size, bias=False)
        self.to_v = nn.Linear(model_size, model_size, bias=False)
        self.to_out = nn.Linear(model_size, model_size, bias=False)

    def forward(self, x_BTD: Tensor, mask_BHTT: Tensor | None = None) -> Tensor:
        """Attend, gate what comes out, mix the heads; returns (B, T, D).

        The mask is boolean, True = may attend. Raises ValueError when sizes do not fit.
        """
        if x_BTD.ndim != 3 or x_BTD.shape[2] != self.to_k.in_features:
            raise ValueError(
                f"x has shape {tuple(x_BTD.shape)}, "
                f"expected (batch, positions, {self.to_k.in_features})"
            )
        packed_BTN = self.to_q_and_gate(x_BTD)
        q_BHTK, gate_BHTR = split_packed(packed_BTN, self.heads, self.gates)
        k_BHTK = split_heads(self.to_k(x_BTD), self.heads)
        v_BHTK = split_heads(self.to_v(x_BTD), self.heads)
        check_sizes(q_BHTK, k_BHTK, v_BHTK, mask_BHTT)
        if mask_BHTT is not None:
            # A blind query gets zeros, which a gate of NaN would turn into NaN.
            blind_BHT1 = ~mask_BHTT.any(dim=3, keepdim=True)
            gate_BHTR = gate_BHTR.masked_fill(blind_BHT1, 0.0)
        out_BHTK = attend(q_BHTK, k_BHTK, v_BHTK, mask_BHTT)
        return self.to_out(merge_heads(out_BHTK * torch.sigmoid(gate_BHTR)))


# --8<-- [end:layer]


# --8<-- [start:ungated]
def ungated(layer: GatedAttention, x_BTD: Tensor) -> Tensor:
    """Return what the layer would give with all gates at 1 (B, T, D)."""
    packed_BTN = layer.to_q_and_gate(x_BTD)
    q_BHTK, _ = split_packed(packed_BTN, layer.heads, layer.gates)
    k_BHTK, v_BHTK = (
        split_heads(to(x_BTD), layer.heads) for to in (layer.to_k, layer.to_v)
    )
    return layer.to_out(merge_heads(attend(q_BHTK, k_BHTK, v_BHTK)))


# --8<-- [end:ungated]


# --8<-- [start:measure]
def measure(T: int) -> tuple[float, float]:
    """Count FLOPs and parameters of layers with 4 heads of size 64; return seconds."""
    x_BTD = torch.randn(1, T, 256)
    layers = {
        "no gate": MultiHeadAttention(256, 4),
        "1 gate a head": GatedAttention(256, 4, 1),
        "64 gates a head": GatedAttention(256, 4, 64),
    }
    for name, layer in layers.items():
        weights = sum(w_any.numel() for w_any in layer.parameters() if w_any.ndim == 2)
        flops = count_flops(partial(layer, x_BTD))
        print(f"T = {T:4}, {name:15}: {flops / 1e6:6.1f} MFLOPs, {weights} weights")
    plain, gated = layers["no gate"], layers["64 gates a head"]
    return seconds(partial(plain, x_BTD)), seconds(partial(gated, x_BTD))


# --8<-- [end:measure]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    x_BTD = torch.randn(2, 16, 64)
    for gates in (1, 16):
        layer = GatedAttention(model_size=64, heads=4, gates=gates)
        _, gate_BHTR = split_packed(layer.to_q_and_gate(x_BTD), 4, gates)
        open_BHTR = torch.sigmoid(gate_BHTR)
        print(
            f"{gates:2} gates a head: output {tuple(layer(x_BTD).shape)},"
            f" gates from {open_BHTR.min():.2f} to {open_BHTR.max():.2f}"
        )
    # --8<-- [end:first-look]

    # --8<-- [start:alone]
    a_11D, b_11D = torch.randn(2, 1, 1, 64).unbind(0)
    layer = GatedAttention(64, 4, 16)
    for name, f in (("no gate", partial(ungated, layer)), ("gated", layer)):
        off = (f(a_11D + b_11D) - f(a_11D) - f(b_11D)).abs().max() / f(
            a_11D
        ).abs().max()
        print(f"{name:7}: f(a + b) differs from f(a) + f(b) by {off:.0%}")
    # --8<-- [end:alone]

    # --8<-- [start:cost]
    sizes = [128, 256, 512, 1024]
    plain, gated = zip(*map(measure, sizes), strict=True)
    plot_growth(sizes, {"no gate": (plain, 2), "64 gates a head": (gated, 2)})
    plt.ylabel("seconds")
    plt.show()
    # --8<-- [end:cost]

    # --8<-- [start:wrong-half]
    for heads in (1, 4):
        layer = GatedAttention(64, heads, 64 // heads)
        right_BTD = layer(x_BTD)
        rows_ND = layer.to_q_and_gate.weight.data
        # All queries first, all gates second: how a flat chunk(2) reads the weight.
        flat_ND = rows_ND.unflatten(0, (2, heads, -1)).transpose(0, 1).flatten(0, 2)
        layer.to_q_and_gate.weight.data = flat_ND.contiguous()
        off = (layer(x_BTD) - right_BTD).abs().max() / right_BTD.abs().max()
        print(
            f"{heads} head(s): read as [queries | gates], outputs are off by {off:.0%}"
        )
    # --8<-- [end:wrong-half]

    # --8<-- [start:width]
    rows = layer.to_q_and_gate.weight.shape[0]
    print(f"4 heads of 16: {4 * 16} rows for queries expected, {rows} are there")
    # --8<-- [end:width]
