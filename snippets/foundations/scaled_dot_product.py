"""Scaled dot-product attention: the form on which everything else is built."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
# --8<-- [start:tools]
import matplotlib.pyplot as plt
import torch.nn.functional as F
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

# --8<-- [end:tools]


# --8<-- [start:check-sizes]
def check_sizes(
    q_BHTK: Tensor, k_BHSK: Tensor, v_BHSV: Tensor, mask_BHTS: Tensor | None
) -> None:
    """Raise a ValueError that names the first argument that does not fit."""
    q, k, v = tuple(q_BHTK.shape), tuple(k_BHSK.shape), tuple(v_BHSV.shape)
    for name, shape in (("query", q), ("key", k), ("value", v)):
        if len(shape) != 4:
            raise ValueError(f"{name} has shape {shape}, expected 4 axes")
    for name, what, came, other, expected in (
        ("key", "batch and heads", k[:2], "query", q[:2]),
        ("value", "batch and heads", v[:2], "query", q[:2]),
        ("key", "size", k[3], "query", q[3]),
        ("value", "positions", v[2], "key", k[2]),
    ):
        if came != expected:
            raise ValueError(
                f"{name} has {what} {came}, {other} has {what} {expected}: "
                "they must agree"
            )
    if mask_BHTS is not None:
        if mask_BHTS.dtype != torch.bool:
            raise ValueError(f"mask has {mask_BHTS.dtype}, expected torch.bool")
        shape, expected = tuple(mask_BHTS.shape), (*q[:3], k[2])
        if shape != expected:
            raise ValueError(f"mask has shape {shape}, expected {expected}")


# --8<-- [end:check-sizes]


# --8<-- [start:masked-softmax]
def masked_softmax(score_BHTS: Tensor, mask_BHTS: Tensor | None = None) -> Tensor:
    """Turn the scores of each query into weights over the keys that it may see.

    Returns weights (B, H, T, S): at least 0, exactly 0 where the mask is False,
    whatever the score there (NaN, too). Each row sums to 1; a row without any
    visible key is all zeros.
    """
    if mask_BHTS is None:
        return torch.softmax(score_BHTS, dim=-1)
    blind_BHT1 = ~mask_BHTS.any(dim=-1, keepdim=True)
    score_BHTS = score_BHTS.masked_fill(~mask_BHTS, -math.inf)
    # Softmax of nothing but -inf is NaN, and so is its gradient: such a row gets
    # harmless scores first and zeros afterwards.
    score_BHTS = score_BHTS.masked_fill(blind_BHT1, 0.0)
    return torch.softmax(score_BHTS, dim=-1).masked_fill(blind_BHT1, 0.0)


# --8<-- [end:masked-softmax]


# --8<-- [start:weigh]
def weigh(weight_BHTS: Tensor, v_BHSV: Tensor) -> Tensor:
    """Sum the values by their weights; a weight of exactly 0 keeps its value out.

    Returns (B, H, T, V). A matrix product alone would let a NaN or Inf through:
    0 · NaN is NaN.
    """
    if v_BHSV.isfinite().all():
        return torch.einsum("BHTS,BHSV->BHTV", weight_BHTS, v_BHSV)
    unused_BHTS1 = (weight_BHTS == 0).unsqueeze(-1)
    v_BHTSV = v_BHSV.unsqueeze(2).masked_fill(unused_BHTS1, 0.0)
    return torch.einsum("BHTS,BHTSV->BHTV", weight_BHTS, v_BHTSV)


# --8<-- [end:weigh]


# --8<-- [start:attend]
def attend(
    q_BHTK: Tensor, k_BHSK: Tensor, v_BHSV: Tensor, mask_BHTS: Tensor | None = None
) -> Tensor:
    """Attend from T queries to S keys (Vaswani et al. 2017, eq. 1).

    The mask is boolean, True = may attend. Returns (B, H, T, V); a query that may
    see no key gets zeros. Raises ValueError when sizes do not fit.
    """
    check_sizes(q_BHTK, k_BHSK, v_BHSV, mask_BHTS)
    if mask_BHTS is not None:
        # Padding may hold anything. Clear it, or 0 · NaN reaches the gradients.
        q_BHTK = q_BHTK.masked_fill(~mask_BHTS.any(dim=3).unsqueeze(-1), 0.0)
        k_BHSK = k_BHSK.masked_fill(~mask_BHTS.any(dim=2).unsqueeze(-1), 0.0)
    # Scale before the product: afterwards float16 may have overflowed already.
    q_BHTK = q_BHTK / math.sqrt(q_BHTK.shape[-1])
    score_BHTS = torch.einsum("BHTK,BHSK->BHTS", q_BHTK, k_BHSK)
    weight_BHTS = masked_softmax(score_BHTS, mask_BHTS)
    return weigh(weight_BHTS, v_BHSV)


# --8<-- [end:attend]


# --8<-- [start:saturation]
def query_gradients(K: int, scale: float) -> tuple[float, Tensor]:
    """Measure what a scale does to random queries and keys of unit variance.

    Returns the variance of the scores, and the norm of the gradient that reaches
    each of 512 queries from the weights over 128 keys, sorted.
    """
    q_BTK = torch.randn(8, 64, K, dtype=torch.float64, requires_grad=True)
    k_BSK = torch.randn(8, 128, K, dtype=torch.float64)
    score_BTS = torch.einsum("BTK,BSK->BTS", q_BTK, k_BSK) * scale
    weight_BTS = torch.softmax(score_BTS, dim=-1)
    loss = (weight_BTS * torch.randn_like(weight_BTS)).sum()
    (grad_BTK,) = torch.autograd.grad(loss, q_BTK)
    return score_BTS.var().item(), grad_BTK.norm(dim=-1).flatten().sort().values


# --8<-- [end:saturation]


# --8<-- [start:measure]
def measure(T: int, K: int = 64) -> tuple[int, float]:
    """Count the FLOPs of one head on T positions, and take the time in seconds."""
    x_BHTK = torch.randn(1, 1, T, K)
    with FlopCounterMode(display=False) as counter:
        attend(x_BHTK, x_BHTK, x_BHTK)
    timer = Timer("attend(x, x, x)", globals={"attend": attend, "x": x_BHTK})
    return counter.get_total_flops(), timer.timeit(5).mean


# --8<-- [end:measure]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    q_BHTK, k_BHSK = torch.randn(1, 1, 6, 4), torch.randn(1, 1, 6, 4)
    v_BHSV = torch.randn(1, 1, 6, 3)
    causal_BHTS = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()
    out_BHTV = attend(q_BHTK, k_BHSK, v_BHSV, causal_BHTS)
    print(tuple(out_BHTV.shape))
    same = out_BHTV[:, :, 0].equal(v_BHSV[:, :, 0])
    print("first query returns the first value:", same)
    # --8<-- [end:first-look]

    # --8<-- [start:why-scale]
    torch.manual_seed(0)
    sizes = [4, 16, 64, 256, 1024, 4096]
    median, mean, median_scaled = [], [], []
    print("   K   var(q·k)  scaled | gradient: median     mean  median, scaled")
    for size in sizes:
        variance, norm_P = query_gradients(size, 1.0)
        variance_scaled, scaled_P = query_gradients(size, size**-0.5)
        median.append(norm_P.median().item())
        mean.append(norm_P.mean().item())
        median_scaled.append(scaled_P.median().item())
        print(
            f"{size:4}   {variance:8.1f}  {variance_scaled:6.2f} |"
            f" {median[-1]:16.1e} {mean[-1]:8.1e} {median_scaled[-1]:15.1e}"
        )
    # --8<-- [end:why-scale]

    # --8<-- [start:saturation-figure]
    plt.loglog(sizes, median_scaled, "o-", label="scaled by 1/√K, median")
    plt.loglog(sizes, mean, "^--", label="not scaled, mean")
    plt.loglog(sizes, median, "s-", label="not scaled, median")
    plt.xlabel("K, size of a query")
    plt.ylabel("gradient norm at a query")
    plt.legend()
    plt.show()
    # --8<-- [end:saturation-figure]

    # --8<-- [start:cost]
    for length in (256, 512, 1024, 2048):
        flops, seconds = measure(length)
        assert flops == 2 * length**2 * (64 + 64)
        print(
            f"T = S = {length:4}: {flops / 1e6:6.1f} MFLOPs, {seconds * 1e3:6.2f} ms,"
            f" weights {4 * length**2 / 2**20:5.2f} MiB"
        )
    cache = 2 * 32 * (128 + 128) / 2**10
    print(f"cache of 32 heads, K = V = 128, bfloat16: {cache:.0f} KiB per token, layer")
    # --8<-- [end:cost]

    # --8<-- [start:weights-figure]
    score_BHTS = torch.einsum("BHTK,BHSK->BHTS", q_BHTK, k_BHSK) / math.sqrt(4)
    _, axes = plt.subplots(1, 2)
    for axis, title, mask_BHTS in zip(
        axes, ("no mask", "causal mask"), (None, causal_BHTS), strict=True
    ):
        weight_BHTS = masked_softmax(score_BHTS, mask_BHTS)
        axis.imshow(weight_BHTS[0, 0].cpu().numpy(), cmap="viridis", vmin=0, vmax=1)
        axis.set(title=title, xlabel="key s", ylabel="query t")
    plt.show()
    # --8<-- [end:weights-figure]

    # --8<-- [start:nan-row]
    hidden_BHTS = score_BHTS.masked_fill(~causal_BHTS, -math.inf)
    hidden_BHTS[0, 0, 2] = -math.inf
    print("naive: ", torch.softmax(hidden_BHTS, dim=-1)[0, 0, 2].tolist())
    seen_BHTS = causal_BHTS.clone()
    seen_BHTS[0, 0, 2] = False
    print("masked:", masked_softmax(score_BHTS, seen_BHTS)[0, 0, 2].tolist())
    # --8<-- [end:nan-row]

    # --8<-- [start:tiny-mask]
    bias_BHTS = ~causal_BHTS * -1e-9
    leak_BHTS = torch.softmax(score_BHTS + bias_BHTS, dim=-1).triu(1)
    print(f"weight of the first query on its future: {leak_BHTS[0, 0, 0].sum():.2f}")
    # --8<-- [end:tiny-mask]

    # --8<-- [start:wrong-axis]
    wrong_BHTS = torch.softmax(score_BHTS.masked_fill(~causal_BHTS, -math.inf), dim=-2)
    print("sums of rows:   ", wrong_BHTS.sum(-1)[0, 0])
    print("sums of columns:", wrong_BHTS.sum(-2)[0, 0])
    # --8<-- [end:wrong-axis]

    # --8<-- [start:overflow]
    big_1D = torch.full((1, 128), 32.0, dtype=torch.float16)
    late_11 = big_1D @ big_1D.mT / math.sqrt(128)
    early_11 = big_1D / math.sqrt(128) @ big_1D.mT
    for name, score_11 in (("after the product", late_11), ("before", early_11)):
        weight = torch.softmax(score_11, dim=-1).item()
        print(f"scaled {name}: {score_11.item()}, weight {weight}")
    # --8<-- [end:overflow]

    # --8<-- [start:top-left]
    last_BH1K = q_BHTK[:, :, -1:]
    step_BH1V = F.scaled_dot_product_attention(
        last_BH1K, k_BHSK, v_BHSV, is_causal=True
    )
    full_BH1V = attend(last_BH1K, k_BHSK, v_BHSV)
    print("is_causal=True returns the first value:", step_BH1V.equal(v_BHSV[:, :, :1]))
    print(f"error of the decoding step: {(step_BH1V - full_BH1V).abs().max():.2f}")
    # --8<-- [end:top-left]
