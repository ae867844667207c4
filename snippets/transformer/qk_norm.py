"""QK-norm: normalize queries and keys, so that their length can no longer drive scores."""

# --8<-- [start:imports]
import math
from collections.abc import Callable
from functools import partial

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
from snippets.foundations.scaled_dot_product import attend, check_sizes
from snippets.properties.cost import count_flops, plot_growth, seconds
from snippets.transformer.multi_head import merge_heads, split_heads
from snippets.transformer.soft_capping import clear_hidden


# --8<-- [start:norms]
def rms_norm(x_any: Tensor, scale_any: Tensor, eps: float = 1e-6) -> Tensor:
    """Divide by the root mean square over the last axis, multiply by a learned scale.

    Returns the shape and dtype of x. The squares are summed in float32 at least:
    in float16 the square of 256 overflows.
    """
    wide_any = x_any.to(torch.promote_types(x_any.dtype, torch.float32))
    power_any = wide_any.square().mean(dim=-1, keepdim=True)
    return (wide_any * torch.rsqrt(power_any + eps)).to(x_any.dtype) * scale_any


def unit_norm(x_any: Tensor, eps: float = 1e-12) -> Tensor:
    """Divide by the Euclidean length over the last axis, or by eps if that is more.

    Returns the shape and dtype of x.
    """
    wide_any = x_any.to(torch.promote_types(x_any.dtype, torch.float32))
    power_any = wide_any.square().sum(dim=-1, keepdim=True)
    return (wide_any * torch.rsqrt(power_any.clamp_min(eps**2))).to(x_any.dtype)


# --8<-- [end:norms]


# --8<-- [start:attend-cosine]
def attend_cosine(
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSV: Tensor,
    gain_H: Tensor,
    mask_BHTS: Tensor | None = None,
) -> Tensor:
    """Attend by cosines times a learned gain of each head (Henry et al. 2020).

    The mask is boolean, True = may attend. Returns (B, H, T, V); a query that may
    see no key gets zeros. Raises ValueError when sizes do not fit.
    """
    check_sizes(q_BHTK, k_BHSK, v_BHSV, mask_BHTS)
    if gain_H.shape != q_BHTK.shape[1:2]:
        raise ValueError(
            f"gain has shape {tuple(gain_H.shape)}, query has {q_BHTK.shape[1]} heads: "
            "one number for each is expected"
        )
    q_BHTK, k_BHSK = clear_hidden(q_BHTK, k_BHSK, mask_BHTS)
    # attend divides by √K, which has no place here: take it back.
    gain_H11 = gain_H.view(-1, 1, 1) * math.sqrt(q_BHTK.shape[-1])
    return attend(unit_norm(q_BHTK) * gain_H11, unit_norm(k_BHSK), v_BHSV, mask_BHTS)


# --8<-- [end:attend-cosine]


# --8<-- [start:layer]
class QKNormAttention(nn.Module):
    """Self-attention with an RMSNorm of each head's queries and keys, as in Qwen3."""

    def __init__(self, model_size: int, heads: int) -> None:
        """Make projections and scales; raise ValueError unless heads divides size."""
        super().__init__()
        if heads < 1 or model_size % heads:
            raise ValueError(
                f"heads is {heads}, model_size is {model_size}: heads must divide it"
            )
        self.heads = heads
        self.to_q = nn.Linear(model_size, model_size, bias=False)
        self.to_k = nn.Linear(model_size, model_size, bias=False)
        self.to_v = nn.Linear(model_size, model_size, bias=False)
        self.to_out = nn.Linear(model_size, model_size, bias=False)
        # One scale for all heads: K numbers for queries, K for keys.
        self.q_scale_K = nn.Parameter(torch.ones(model_size // heads))
        self.k_scale_K = nn.Parameter(torch.ones(model_size // heads))

    def forward(
        self,
        x_BTD: Tensor,
        mask_BHTT: Tensor | None = None,
        rotate: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Normalize, then rotate (positions, if any), then attend; returns (B, T, D).

        The mask is boolean, True = may attend. Raises ValueError when sizes do not fit.
        """
        if x_BTD.ndim != 3 or x_BTD.shape[2] != self.to_q.in_features:
            raise ValueError(
                f"x has shape {tuple(x_BTD.shape)}, "
                f"expected (batch, positions, {self.to_q.in_features})"
            )
        q_BHTK = split_heads(self.to_q(x_BTD), self.heads)
        k_BHTK = split_heads(self.to_k(x_BTD), self.heads)
        v_BHTK = split_heads(self.to_v(x_BTD), self.heads)
        check_sizes(q_BHTK, k_BHTK, v_BHTK, mask_BHTT)
        q_BHTK, k_BHTK = clear_hidden(q_BHTK, k_BHTK, mask_BHTT)
        q_BHTK = rms_norm(q_BHTK, self.q_scale_K)
        k_BHTK = rms_norm(k_BHTK, self.k_scale_K)
        if rotate is not None:
            q_BHTK, k_BHTK = rotate(q_BHTK), rotate(k_BHTK)
        return self.to_out(merge_heads(attend(q_BHTK, k_BHTK, v_BHTK, mask_BHTT)))


# --8<-- [end:layer]


# --8<-- [start:entropy]
def mean_entropy(q_BHTK: Tensor, k_BHTK: Tensor) -> float:
    """Return the mean entropy of the weights of all queries, in nats."""
    score_BHTS = torch.einsum("BHTK,BHSK->BHTS", q_BHTK, k_BHTK)
    weight_BHTS = torch.softmax(score_BHTS / math.sqrt(q_BHTK.shape[-1]), dim=-1)
    return torch.special.entr(weight_BHTS).sum(-1).mean().item()


# --8<-- [end:entropy]


# --8<-- [start:rotate]
def rotate_from(start: int, x_BHTK: Tensor) -> Tensor:
    """Rotate each pair of the last axis (i, i + K/2) by position times a speed."""
    T, K = x_BHTK.shape[2:]
    speed_K = 100.0 ** -torch.linspace(0, 1, K // 2).repeat(2)
    angle_TK = torch.arange(start, start + T).unsqueeze(1) * speed_K
    low_BHTR, high_BHTR = x_BHTK.chunk(2, dim=-1)
    turned_BHTK = torch.cat([-high_BHTR, low_BHTR], dim=-1)
    return x_BHTK * angle_TK.cos() + turned_BHTK * angle_TK.sin()


def scores(q_BHTK: Tensor, k_BHTK: Tensor, *steps: Callable) -> Tensor:
    """Apply the steps to queries and keys; returns their products (B, H, T, T)."""
    for step in steps:
        q_BHTK, k_BHTK = step(q_BHTK), step(k_BHTK)
    return torch.einsum("BHTK,BHSK->BHTS", q_BHTK, k_BHTK)


# --8<-- [end:rotate]


# --8<-- [start:measure]
def measure(T: int) -> tuple[float, float]:
    """Return the seconds that the two norms and the attention of 4 heads take."""
    q_BHTK, k_BHTK, scale_K = *torch.randn(2, 1, 4, T, 64).unbind(0), torch.ones(64)
    layer, x_BTD = QKNormAttention(256, 4), torch.randn(1, T, 256)
    flops = count_flops(partial(layer, x_BTD))
    print(f"T = {T:4}: {flops / 1e6:7.1f} MFLOPs in matrix products")
    norms = seconds(lambda: (rms_norm(q_BHTK, scale_K), rms_norm(k_BHTK, scale_K)))
    return norms, seconds(partial(attend, q_BHTK, k_BHTK, k_BHTK))


# --8<-- [end:measure]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    q_BHTK, k_BHTK = torch.randn(2, 1, 4, 64, 64).unbind(0)
    norm = partial(rms_norm, scale_any=torch.ones(64))
    print(f"64 keys, at most {math.log(64):.2f} nats")
    for factor in (1, 3, 10, 100):
        plain = mean_entropy(factor * q_BHTK, factor * k_BHTK)
        normed = mean_entropy(norm(factor * q_BHTK), norm(factor * k_BHTK))
        print(f"q and k times {factor:3}: {plain:.2f} plain, {normed:.2f} normalized")
    # --8<-- [end:first-look]

    # --8<-- [start:reach]
    for name, bound in {
        "unit norm, 1/√64 left in": 1 / 8,
        "unit norm, no gain": 1.0,
        "RMSNorm, scale 1, K = 64": 8.0,
        "unit norm, gain 10": 10.0,
    }.items():
        top = 1 / (1 + 1023 * math.exp(-2 * bound))
        print(f"{name:25}: |score| ≤ {bound:5.3f}, of 1024 keys one gets ≤ {top:.4f}")
    # --8<-- [end:reach]

    # --8<-- [start:cost]
    sizes = [128, 256, 512, 1024]
    norms, attention = zip(*map(measure, sizes), strict=True)
    plot_growth(sizes, {"both norms": (norms, 1), "attention": (attention, 2)})
    plt.ylabel("seconds")
    plt.show()
    # --8<-- [end:cost]

    # --8<-- [start:lost-gain]
    x_BHTK = torch.randn(1, 4, 64, 64)
    gain_H = torch.full((4,), 10.0)
    right_BHTK = attend_cosine(q_BHTK, k_BHTK, x_BHTK, gain_H)
    lost_BHTK = attend(unit_norm(q_BHTK), unit_norm(k_BHTK), x_BHTK)
    mean_BH1K = x_BHTK.mean(2, keepdim=True)
    for name, out_BHTK in (("gain 10", right_BHTK), ("no gain, 1/√K", lost_BHTK)):
        off = (out_BHTK - mean_BH1K).std().item()
        print(f"{name:14}: outputs differ from the mean of all values by {off:.3f}")
    # --8<-- [end:lost-gain]

    # --8<-- [start:order]
    early, late = partial(rotate_from, 0), partial(rotate_from, 7)
    for name, scale_K in (("ones", torch.ones(64)), ("learned", torch.rand(64))):
        norm = partial(rms_norm, scale_any=scale_K)
        for order, here_BHTS, there_BHTS in (
            (
                "norm, rotate",
                scores(q_BHTK, k_BHTK, norm, early),
                scores(q_BHTK, k_BHTK, norm, late),
            ),
            (
                "rotate, norm",
                scores(q_BHTK, k_BHTK, early, norm),
                scores(q_BHTK, k_BHTK, late, norm),
            ),
        ):
            gap = (here_BHTS - there_BHTS).abs().max().item()
            print(f"scale {name:7}, {order}: shifted by 7, scores move {gap:.1e}")
    # --8<-- [end:order]

    # --8<-- [start:whole]
    x_BTD = torch.randn(1, 64, 256)
    loud_BTD = x_BTD.clone()
    loud_BTD[..., :64] *= 10  # the part of head 0
    for name, normed in (
        ("each head", lambda x_BTD: rms_norm(split_heads(x_BTD, 4), torch.ones(64))),
        ("all of D", lambda x_BTD: split_heads(rms_norm(x_BTD, torch.ones(256)), 4)),
    ):
        moved = (normed(loud_BTD) / normed(x_BTD))[:, 1:].mean().item()
        print(f"norm over {name}: heads 1 to 3 are scaled by {moved:.2f}")
    # --8<-- [end:whole]
