"""FlashAttention, backward: compute the tiles again from q, k and the LSE."""

# --8<-- [start:imports]
import functools
import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# --8<-- [end:imports]
# isort: split
from snippets.efficient.flash_forward import flash_forward, last_keys
from snippets.efficient.online_softmax import shifted_exp
from snippets.foundations.scaled_dot_product import attend, weigh
from snippets.properties.cost import count_flops, peak_bytes, plot_growth, plt


# --8<-- [start:tile-gradients]
def tile_gradients(
    q_BHRK: Tensor,
    k_BHCK: Tensor,
    v_BHCV: Tensor,
    grad_BHRV: Tensor,
    lse_BHR1: Tensor,
    dot_BHR1: Tensor,
    hidden_RC: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what one tile adds to dQ, dK and dV (Dao et al. 2022, algorithm 4).

    `grad` is the gradient of the output, `dot` its product with the output, row by
    row, and `hidden` is True where a query may not see a key.
    """
    scale = 1 / math.sqrt(q_BHRK.shape[3])
    score_BHRC = torch.einsum("BHRK,BHCK->BHRC", q_BHRK * scale, k_BHCK)
    score_BHRC = score_BHRC.masked_fill(hidden_RC, -math.inf)
    weight_BHRC = shifted_exp(score_BHRC, lse_BHR1)
    dweight_BHRC = torch.einsum("BHRV,BHCV->BHRC", grad_BHRV, v_BHCV)
    dscore_BHRC = weight_BHRC * (dweight_BHRC - dot_BHR1)
    dscore_BHRC = dscore_BHRC.masked_fill(hidden_RC, 0.0)  # 0 · NaN is NaN
    dq_BHRK = weigh(dscore_BHRC, k_BHCK) * scale
    dk_BHCK = weigh(dscore_BHRC.mT, q_BHRK) * scale
    return dq_BHRK, dk_BHCK, weigh(weight_BHRC.mT, grad_BHRV)


# --8<-- [end:tile-gradients]


# --8<-- [start:flash-backward]
def flash_backward(
    grad_BHTV: Tensor,
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSV: Tensor,
    out_BHTV: Tensor,
    lse_BHT: Tensor,
    causal: bool = False,
    rows: int = 64,
    columns: int = 64,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dQ, dK and dV of an output and LSE that `flash_forward` returned.

    All sums run in at least float32; the results have the dtypes of q, k and v.
    """
    T, S, wide = q_BHTK.shape[2], k_BHSK.shape[2], lse_BHT.dtype
    grad_BHTV, last_T1 = grad_BHTV.to(wide), last_keys(T, S, causal).to(q_BHTK.device)
    dot_BHT1 = (grad_BHTV * out_BHTV).sum(dim=3, keepdim=True)
    dq_BHTK, dk_BHSK, dv_BHSV = (
        torch.zeros_like(one_any, dtype=wide) for one_any in (q_BHTK, k_BHSK, v_BHSV)
    )
    for top in range(0, T, rows):
        row = slice(top, top + rows)
        last_R1 = last_T1[row]
        for left in range(0, int(last_R1.max()) + 1, columns):
            column = slice(left, left + columns)
            key_C = torch.arange(S, device=q_BHTK.device)[column]
            dq_BHRK, dk_BHCK, dv_BHCV = tile_gradients(
                q_BHTK[:, :, row].to(wide),
                k_BHSK[:, :, column].to(wide),
                v_BHSV[:, :, column].to(wide),
                grad_BHTV[:, :, row],
                lse_BHT[:, :, row].unsqueeze(3),
                dot_BHT1[:, :, row],
                key_C > last_R1,
            )
            dq_BHTK[:, :, row] += dq_BHRK
            dk_BHSK[:, :, column] += dk_BHCK
            dv_BHSV[:, :, column] += dv_BHCV
    return dq_BHTK.to(q_BHTK.dtype), dk_BHSK.to(k_BHSK.dtype), dv_BHSV.to(v_BHSV.dtype)


# --8<-- [end:flash-backward]


# --8<-- [start:flash-attention]
class FlashAttention(torch.autograd.Function):
    """Attention that keeps q, k, v, output and LSE for its backward, no weights."""

    @staticmethod
    def forward(
        ctx,
        q_BHTK: Tensor,
        k_BHSK: Tensor,
        v_BHSV: Tensor,
        causal: bool,
        rows: int,
        columns: int,
    ) -> Tensor:
        """Return the output (B, H, T, V); remember what the backward needs."""
        out_BHTV, lse_BHT = flash_forward(q_BHTK, k_BHSK, v_BHSV, causal, rows, columns)
        ctx.save_for_backward(q_BHTK, k_BHSK, v_BHSV, out_BHTV, lse_BHT)
        ctx.settings = causal, rows, columns
        return out_BHTV

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BHTV: Tensor) -> tuple:
        """Return a gradient for each argument of forward, None for the last three."""
        grads_any = flash_backward(grad_BHTV, *ctx.saved_tensors, *ctx.settings)
        return *grads_any, None, None, None


def flash_attention(
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSV: Tensor,
    causal: bool = False,
    rows: int = 64,
    columns: int = 64,
) -> Tensor:
    """Attend tile by tile, forward and backward; returns (B, H, T, V).

    Raises ValueError when sizes do not fit.
    """
    return FlashAttention.apply(q_BHTK, k_BHSK, v_BHSV, causal, rows, columns)


# --8<-- [end:flash-attention]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    q_BHTK = torch.randn(1, 2, 100, 16, requires_grad=True)
    k_BHSK = torch.randn(1, 2, 130, 16, requires_grad=True)
    v_BHSV = torch.randn(1, 2, 130, 8, requires_grad=True)
    leaves_any, weight_BHTV = (q_BHTK, k_BHSK, v_BHSV), torch.randn(1, 2, 100, 8)
    seen_BHTS = torch.ones(100, 130, dtype=torch.bool).tril(30).expand(1, 2, 100, 130)
    out_BHTV = flash_attention(*leaves_any, causal=True)
    ours_any = torch.autograd.grad(out_BHTV, leaves_any, weight_BHTV)
    plain_BHTV = attend(*leaves_any, seen_BHTS)
    theirs_any = torch.autograd.grad(plain_BHTV, leaves_any, weight_BHTV)
    for name, a_any, b_any in zip(
        ("dQ", "dK", "dV"), ours_any, theirs_any, strict=True
    ):
        print(
            f"{name}: differs from autograd by {(a_any - b_any).abs().max().item():.0e}"
        )
    # --8<-- [end:first-look]

    # --8<-- [start:saved]
    def kept_bytes(f, x_any: Tensor) -> int:
        """Return the bytes that a forward keeps for its backward."""
        kept = {}

        def keep(one_any: Tensor) -> Tensor:
            storage = one_any.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return one_any

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda one_any: one_any):
            out_any = f(x_any, x_any, x_any)
        return sum(kept.values()) if out_any.requires_grad else 0

    def tiles_without_care(q_any: Tensor, k_any: Tensor, v_any: Tensor) -> Tensor:
        """Run the tiled forward and leave its backward to autograd."""
        return flash_forward(q_any, k_any, v_any)[0]

    leaf_any = torch.randn(1, 1, 1024, 32, requires_grad=True)
    for f in (attend, tiles_without_care, flash_attention):
        print(f"{f.__name__} keeps {kept_bytes(f, leaf_any) / 2**10:.0f} KiB")
    # --8<-- [end:saved]

    # --8<-- [start:work]
    def train(f, x_any: Tensor) -> None:
        """Run a forward and a backward."""
        f(x_any, x_any, x_any).sum().backward()

    leaf_any = torch.randn(1, 1, 256, 32, requires_grad=True)
    unit = 2 * 256 * 256 * 32  # one product of T × S × K
    for f in (attend, flash_attention):
        forward = count_flops(functools.partial(f, leaf_any, leaf_any, leaf_any)) / unit
        both = count_flops(functools.partial(train, f, leaf_any)) / unit
        print(
            f"{f.__name__}: {forward:.0f} products forward, {both - forward:.0f} back"
        )
    # --8<-- [end:work]

    # --8<-- [start:cost]
    lengths = [128, 256, 512]
    tiled, whole = [], []
    for length in lengths:
        leaf_any = torch.randn(1, 1, length, 32, requires_grad=True)
        tiled.append(peak_bytes(functools.partial(train, flash_attention, leaf_any)))
        whole.append(peak_bytes(functools.partial(train, attend, leaf_any)))
    print(
        f"at 512: flash {tiled[-1] / 2**20:.2f} MiB, plain {whole[-1] / 2**20:.2f} MiB"
    )
    plot_growth(lengths, {"flash": (tiled, 1), "plain": (whole, 2)})
    plt.ylabel("peak bytes, forward and backward")
    plt.show()
    # --8<-- [end:cost]

    # --8<-- [start:mask-forgotten]
    with torch.no_grad():
        out_BHTV, lse_BHT = flash_forward(*leaves_any, causal=True)
        saved_any = (*leaves_any, out_BHTV, lse_BHT)
        right_any = flash_backward(weight_BHTV, *saved_any, causal=True)
        wrong_any = flash_backward(weight_BHTV, *saved_any)
    for name, a_any, b_any in zip(
        ("dQ", "dK", "dV"), wrong_any, right_any, strict=True
    ):
        print(
            f"backward without the mask: {name} off by {(a_any - b_any).abs().max().item():.1e}"
        )
    # --8<-- [end:mask-forgotten]

    # --8<-- [start:layout]
    grad_BHTV = torch.randn(1, 100, 2, 8).transpose(1, 2)  # as from a merge of heads
    misread_BHTV = grad_BHTV.as_strided(out_BHTV.shape, out_BHTV.stride())
    for name, read_BHTV in (("by strides", grad_BHTV), ("as if whole", misread_BHTV)):
        dot_BHT = (read_BHTV * out_BHTV).sum(3)
        gap = (dot_BHT - (grad_BHTV * out_BHTV).sum(3)).abs().max().item()
        print(f"dO read {name}: D is off by {gap:.1f}")
    # --8<-- [end:layout]

    # --8<-- [start:too-few]
    class OneNoneShort(FlashAttention):
        """Forgets that a setting was added to forward."""

        @staticmethod
        def backward(ctx, grad_BHTV: Tensor) -> tuple:
            """Return five gradients for six arguments."""
            return FlashAttention.backward(ctx, grad_BHTV)[:-1]

    out_any = OneNoneShort.apply(*leaves_any, False, 64, 64)
    try:
        out_any.sum().backward()
    except RuntimeError as error:
        print("RuntimeError:", error)
    # --8<-- [end:too-few]
