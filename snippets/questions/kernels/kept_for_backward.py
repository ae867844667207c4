"""What a backward of attention needs: q, k, v, the output and one number a query."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:backward]
def backward(
    grad_TV: Tensor,
    q_TK: Tensor,
    k_SK: Tensor,
    v_SV: Tensor,
    out_TV: Tensor,
    lse_T1: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dQ, dK and dV; the weights are computed again, not looked up."""
    scale = q_TK.shape[1] ** -0.5
    weight_TS = torch.exp(scale * q_TK @ k_SK.T - lse_T1)  # normalized at once
    dot_T1 = (grad_TV * out_TV).sum(1, keepdim=True)
    dscore_TS = weight_TS * (grad_TV @ v_SV.T - dot_T1)
    return scale * dscore_TS @ k_SK, scale * dscore_TS.T @ q_TK, weight_TS.T @ grad_TV


# --8<-- [end:backward]

if __name__ == "__main__":
    # --8<-- [start:recompute]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    q_TK, k_SK, v_SV, grad_TV = torch.randn(4, 64, 16).double()
    leaves_any = [x_any.clone().requires_grad_() for x_any in (q_TK, k_SK, v_SV)]
    score_TS = leaves_any[0] @ leaves_any[1].T / 4
    out_TV = score_TS.softmax(-1) @ leaves_any[2]
    exact_any = torch.autograd.grad(out_TV, leaves_any, grad_TV)
    lse_T1 = score_TS.logsumexp(-1, keepdim=True)
    gap = {}
    for name, sign in (("with D", 1), ("without D", 0)):
        ours_any = backward(
            grad_TV, q_TK, k_SK, v_SV, sign * out_TV.detach(), lse_T1.detach()
        )
        pairs = zip(ours_any, exact_any, strict=True)
        gap[name] = [(a_any - b_any).abs().max().item() for a_any, b_any in pairs]
        print(f"{name:9}: dQ, dK, dV off by", *[f"{x:.0e}" for x in gap[name]])
    assert max(gap["with D"]) < 1e-12
    assert min(gap["without D"][:2]) > 0.1
    # --8<-- [end:recompute]

    # --8<-- [start:kept]
    torch.manual_seed(0)

    def by_hand(q_any: Tensor, k_any: Tensor, v_any: Tensor) -> Tensor:
        """Attend as the formula says."""
        return (q_any @ k_any.mT / 8).softmax(-1) @ v_any

    kept = {}
    for attend in (by_hand, F.scaled_dot_product_attention):
        for length in (1024, 2048):
            qkv_any = torch.randn(3, 1, 1, length, 64).unbind(0)
            qkv_any = [x_any.requires_grad_() for x_any in qkv_any]
            own, saved = {x_any.data_ptr() for x_any in qkv_any}, {}

            def note(x_any: Tensor, own=own, saved=saved) -> Tensor:
                """Note what autograd keeps, besides q, k and v."""
                if x_any.data_ptr() not in own and x_any.numel() > 1:
                    saved[x_any.data_ptr()] = x_any
                return x_any

            with torch.autograd.graph.saved_tensors_hooks(note, lambda x_any: x_any):
                out_any = attend(*qkv_any)
            size = sum(x_any.numel() * x_any.element_size() for x_any in saved.values())
            kept[attend.__name__, length] = size
            shapes = [
                tuple(n for n in x_any.shape if n > 1) for x_any in saved.values()
            ]
            print(f"{attend.__name__}, T = {length}: keeps {size // 1024} KiB {shapes}")
    assert kept["by_hand", 2048] > 3.9 * kept["by_hand", 1024]
    sdpa = F.scaled_dot_product_attention.__name__
    assert kept[sdpa, 2048] == 2 * kept[sdpa, 1024]
    # --8<-- [end:kept]
