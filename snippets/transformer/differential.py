"""Differential attention: one softmax map minus a share of another."""

# --8<-- [start:imports]
import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
# --8<-- [start:tools]
import matplotlib.pyplot as plt

# --8<-- [end:tools]
# isort: split
from snippets.foundations.scaled_dot_product import attend
from snippets.properties.cost import count_flops, plot_growth
from snippets.transformer.multi_head import MultiHeadAttention, merge_heads, split_heads


# --8<-- [start:differential]
def differential(
    q_BHTV: Tensor,
    k_BHSV: Tensor,
    v_BHSV: Tensor,
    share: Tensor | float,
    mask_BHTS: Tensor | None = None,
) -> Tensor:
    """Attend by two maps and subtract `share` of the second (Ye et al. 2024, eq. 1).

    Queries and keys hold two halves of size K = V / 2, one for each map; the values
    serve both. Returns (B, H, T, V); a query without keys gets zeros. Raises
    ValueError when sizes do not fit.
    """
    if q_BHTV.shape[-1] % 2:
        raise ValueError(f"query has size {q_BHTV.shape[-1]}, expected an even size")
    q1_BHTK, q2_BHTK = q_BHTV.chunk(2, dim=-1)
    k1_BHSK, k2_BHSK = k_BHSV.chunk(2, dim=-1)
    first_BHTV = attend(q1_BHTK, k1_BHSK, v_BHSV, mask_BHTS)
    return first_BHTV - share * attend(q2_BHTK, k2_BHSK, v_BHSV, mask_BHTS)


# --8<-- [end:differential]


# --8<-- [start:first-share]
def first_share(layer: int) -> float:
    """Return λ_init of a layer, counted from 1: 0.2 at first, towards 0.8 later."""
    if layer < 1:
        raise ValueError(f"layer is {layer}, expected 1 or more")
    return 0.8 - 0.6 * math.exp(-0.3 * (layer - 1))


# --8<-- [end:first-share]


# --8<-- [start:layer]
class DifferentialAttention(nn.Module):
    """Self-attention of `heads` differential heads (Ye et al. 2024, §2.1)."""

    def __init__(self, model_size: int, heads: int, layer: int) -> None:
        """Make projections and λ; raise ValueError unless 2 · heads divides the size."""
        super().__init__()
        if heads < 1 or model_size % (2 * heads):
            raise ValueError(
                f"heads is {heads}, model_size is {model_size}: "
                "twice the heads must divide it"
            )
        self.heads, self.first_share = heads, first_share(layer)
        self.to_q = nn.Linear(model_size, model_size, bias=False)
        self.to_k = nn.Linear(model_size, model_size, bias=False)
        self.to_v = nn.Linear(model_size, model_size, bias=False)
        self.to_out = nn.Linear(model_size, model_size, bias=False)
        K = model_size // (2 * heads)
        self.share_q = nn.Parameter(0.1 * torch.randn(2, K))
        self.share_k = nn.Parameter(0.1 * torch.randn(2, K))

    def share(self) -> Tensor:
        """Return λ, one number for all heads of the layer (eq. 2)."""
        wide = torch.promote_types(self.share_q.dtype, torch.float32)
        grown_2 = (self.share_q * self.share_k).sum(dim=1, dtype=wide).exp()
        return grown_2[0] - grown_2[1] + self.first_share

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
        B, T, _ = x_BTD.shape
        mask_BHTT = None
        if mask_BTT is not None:
            if mask_BTT.shape != (B, T, T):
                raise ValueError(
                    f"mask has shape {tuple(mask_BTT.shape)}, expected {(B, T, T)}"
                )
            mask_BHTT = mask_BTT.unsqueeze(1).expand(B, self.heads, T, T)
        q_BHTV, k_BHTV, v_BHTV = (
            split_heads(to(x_BTD), self.heads)
            for to in (self.to_q, self.to_k, self.to_v)
        )
        out_BHTV = differential(q_BHTV, k_BHTV, v_BHTV, self.share(), mask_BHTT)
        out_BHTV = F.rms_norm(out_BHTV, out_BHTV.shape[-1:], eps=1e-5)
        return self.to_out(merge_heads((1 - self.first_share) * out_BHTV))


# --8<-- [end:layer]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    layer, x_BTD = DifferentialAttention(64, heads=4, layer=3), torch.randn(2, 6, 64)
    print(tuple(layer(x_BTD).shape), f"λ = {layer.share().item():.3f}")
    print({number: round(first_share(number), 2) for number in (1, 2, 4, 8, 16, 32)})
    # --8<-- [end:first-look]

    # --8<-- [start:noise]
    torch.manual_seed(0)
    K = 16
    needle_K, noise_SK = torch.randn(K), torch.randn(64, K)
    k1_SK, k2_SK = noise_SK.clone(), noise_SK.clone()
    k1_SK[40] = 4 * needle_K / needle_K.norm()  # only the first map knows the needle
    q_K = needle_K + torch.randn(K)
    maps_2S = torch.stack([k1_SK @ q_K, k2_SK @ q_K]).div(math.sqrt(K)).softmax(-1)
    for share in (0.0, 0.8):
        weight_S = maps_2S[0] - share * maps_2S[1]
        others = weight_S.abs().sum() - weight_S[40].abs()
        print(
            f"λ = {share}: needle {weight_S[40]:.3f}, all others {others:.3f}, "
            f"sum {weight_S.sum():.2f}, smallest {weight_S.min():.3f}"
        )
    # --8<-- [end:noise]

    # --8<-- [start:cost]
    with torch.no_grad():
        for name, module in (
            ("multi-head, 8 heads", MultiHeadAttention(64, 8)),
            ("differential, 4 heads", DifferentialAttention(64, 4, 1)),
        ):
            flops = count_flops(partial(module, torch.randn(1, 256, 64)))
            scores = flops - 8 * 256 * 64**2
            print(f"{name}: {scores / 256**2 / 64:.0f}·T²·D FLOPs in the attention")
    # --8<-- [end:cost]

    # --8<-- [start:growth]
    lengths, flops = [256, 512, 1024, 2048], []
    for length in lengths:
        module, x_any = DifferentialAttention(64, 4, 1), torch.randn(1, length, 64)
        flops.append(count_flops(partial(module, x_any)) - 8 * length * 64**2)
    plot_growth(lengths, {"FLOPs of the two maps": (flops, 2)})
    plt.show()
    # --8<-- [end:growth]

    # --8<-- [start:other-pairs]
    q_BTD, k_BTD, v_BTD = (to(x_BTD) for to in (layer.to_q, layer.to_k, layer.to_v))
    heads_any = [split_heads(one_any, 8) for one_any in (q_BTD, k_BTD, v_BTD)]
    neighbors_any = [split_heads(one_any, 4) for one_any in (q_BTD, k_BTD, v_BTD)]
    halves_any = [torch.cat(one_any.chunk(2, dim=1), -1) for one_any in heads_any]
    gap_any = differential(*neighbors_any, 0.5) - differential(*halves_any, 0.5)
    print(f"heads paired otherwise: outputs differ by {gap_any.abs().max():.2f}")
    # --8<-- [end:other-pairs]

    # --8<-- [start:no-norm]
    v_any, q_any = torch.randn(1, 2, 64, 16), torch.randn(1, 2, 64, 16)
    q_any[:, 0] *= 8  # head 0 looks at few keys, head 1 at all of them
    q_any[:, 1] *= 0.1
    out_any = differential(q_any, v_any, v_any, first_share(1))
    sizes = out_any.square().mean(dim=(0, 2, 3)).sqrt().tolist()
    print("size of the two heads without a norm:", [f"{one:.2f}" for one in sizes])
    # --8<-- [end:no-norm]

    # --8<-- [start:from-zero]
    for counted, number in (("from 1", 1), ("from 0", 0)):
        share = 0.8 - 0.6 * math.exp(-0.3 * (number - 1))
        print(f"first layer, counted {counted}: λ_init = {share:.3f}")
    # --8<-- [end:from-zero]
