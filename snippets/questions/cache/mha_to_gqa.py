"""From MHA to GQA: average the key and value heads of one checkpoint, by group."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.decoding.gqa import pool_heads


# --8<-- [start:self-attend]
def self_attend(
    x_BTD: Tensor, q_HKD: Tensor, k_GKD: Tensor, v_GKD: Tensor, o_HKD: Tensor
) -> Tensor:
    """Attend from x to itself by weights of H query and G key/value heads."""
    head_any = [
        torch.einsum("BTD,HKD->BHTK", x_BTD, w_any) for w_any in (q_HKD, k_GKD, v_GKD)
    ]
    out_BHTK = F.scaled_dot_product_attention(*head_any, enable_gqa=True)
    return torch.einsum("BHTK,HKD->BTD", out_BHTK, o_HKD)


# --8<-- [end:self-attend]


if __name__ == "__main__":
    # --8<-- [start:pool]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    checkpoint = {name: torch.randn(8, 16, 128) / 128**0.5 for name in "qkvo"}
    pooled = dict(checkpoint)
    for name in "kv":
        pooled[name] = pool_heads(checkpoint[name], 2)
    for name, w_any in pooled.items():
        print(f"W_{name}: {tuple(checkpoint[name].shape)} -> {tuple(w_any.shape)}")
    x_BTD = torch.randn(2, 32, 128)
    key_BHTK = torch.einsum("BTD,HKD->BHTK", x_BTD, checkpoint["k"])
    key_BGTK = torch.einsum("BTD,GKD->BGTK", x_BTD, pooled["k"])
    mean_BGTK = key_BHTK.unflatten(1, (2, 4)).mean(dim=2)
    assert (mean_BGTK - key_BGTK).abs().max() < 1e-5  # pooled weights, pooled keys
    # --8<-- [end:pool]

    # --8<-- [start:choices]
    torch.manual_seed(0)
    x_BTD = torch.randn(2, 32, 128)
    error = {}
    for spread in (0.0, 0.3, 1.0, 3.0):
        base_any = torch.randn(2, 2, 1, 16, 128).expand(2, 2, 4, 16, 128)
        full_any = (base_any + spread * torch.randn(2, 2, 4, 16, 128)).flatten(1, 2)
        full_any = full_any / (128 * (1 + spread**2)) ** 0.5  # 8 heads of K and of V
        q_HKD, o_HKD = torch.randn(2, 8, 16, 128) / 128**0.5
        right_BTD = self_attend(x_BTD, q_HKD, *full_any, o_HKD)
        start_any = {
            "mean": full_any.unflatten(1, (2, 4)).mean(dim=2),
            "first": full_any[:, ::4],
            "random": torch.randn(2, 2, 16, 128) / 128**0.5,
        }
        for name, pair_any in start_any.items():
            off_BTD = self_attend(x_BTD, q_HKD, *pair_any, o_HKD) - right_BTD
            error[spread, name] = (off_BTD.norm() / right_BTD.norm()).item()
        print(spread, {name: f"{error[spread, name]:.0%}" for name in start_any})
        assert error[spread, "mean"] < error[spread, "first"] + 1e-5
        assert error[spread, "first"] < error[spread, "random"]
    # --8<-- [end:choices]

    # --8<-- [start:two-models]
    torch.manual_seed(0)
    x_BTD = torch.randn(2, 32, 128)
    one_any = torch.randn(4, 8, 16, 128) / 128**0.5  # W_Q, W_K, W_V, W_O
    two_any = one_any.flip(1)  # the same function with its heads in another order
    merged_any = (one_any + two_any) / 2
    out_any = [self_attend(x_BTD, *w_any) for w_any in (one_any, two_any, merged_any)]
    same = (out_any[1] - out_any[0]).norm() / out_any[0].norm()
    broken = (out_any[2] - out_any[0]).norm() / out_any[0].norm()
    print(f"reordered: {same.item():.0e}, average of both models: {broken.item():.0%}")
    assert same < 1e-5 < 0.5 < broken
    # --8<-- [end:two-models]
