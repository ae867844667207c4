"""Documents packed into one row: the mask, and a test that finds every leak."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.transformer.masks import causal, documents


# --8<-- [start:reach]
def reach(mask_TT: Tensor, layers: int) -> Tensor:
    """Say which inputs each output depends on after that many layers, (T, T)."""
    T = len(mask_TT)
    x_1TD = torch.randn(1, T, 8, requires_grad=True)
    out_1TD = x_1TD
    for _ in range(layers):
        out_1TD = out_1TD + F.scaled_dot_product_attention(*[out_1TD] * 3, mask_TT)
    return torch.stack(
        [
            torch.autograd.grad(out_1TD[0, t].sum(), x_1TD, retain_graph=True)[0][0]
            .abs()
            .amax(-1)
            > 0
            for t in range(T)
        ]
    )


# --8<-- [end:reach]

if __name__ == "__main__":
    # --8<-- [start:combine]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    document_18 = torch.tensor([[0, 0, 0, 1, 2, 2, 2, 2]])  # lengths 3, 1, 4
    past_88 = causal(8, 8)  # (T, S)
    same_188 = documents(document_18, 8)  # (B, T, S): differs between samples
    both_188 = past_88 & same_188  # broadcast to (B, T, S)
    near_88 = torch.ones(8, 8, dtype=torch.bool).triu(-2)  # window of 3
    for name, mask_any in (
        ("causal", past_88),
        ("causal and document", both_188[0]),
        ("... and window of 3", (both_188 & near_88)[0]),
        ("causal or document", (past_88 | same_188)[0]),
    ):
        print(f"{name:20} keys per query: {mask_any.sum(-1).tolist()}")
    assert both_188[0].sum(-1).tolist() == [1, 2, 3, 1, 1, 2, 3, 4]
    # --8<-- [end:combine]

    # --8<-- [start:equal]
    torch.manual_seed(0)
    x_18D, document_18 = torch.randn(1, 8, 16), torch.tensor([[0, 0, 0, 1, 2, 2, 2, 2]])
    past_88 = causal(8, 8)
    alone_18D = torch.cat(
        [
            F.scaled_dot_product_attention(*[part_any] * 3, is_causal=True)
            for part_any in x_18D.split([3, 1, 4], dim=1)
        ],
        dim=1,
    )
    error = {}
    for name, mask_188 in (
        ("causal and document", past_88 & documents(document_18, 8)),
        ("causal only", past_88[None]),
    ):
        packed_18D = F.scaled_dot_product_attention(*[x_18D] * 3, mask_188)
        error[name] = (packed_18D - alone_18D).abs().max().item()
        print(f"{name}: differs from each document alone by {error[name]:.2f}")
    assert error["causal and document"] < 1e-6
    assert error["causal only"] > 0.1
    # --8<-- [end:equal]

    # --8<-- [start:leaks]
    torch.manual_seed(0)
    document_18 = torch.tensor([[0, 0, 0, 1, 2, 2, 2, 2]])
    past_88, same_88 = causal(8, 8), documents(document_18, 8)[0]
    near_88 = torch.ones(8, 8, dtype=torch.bool).triu(-1)  # window of 2
    leaks = {}
    for name, mask_88 in (
        ("causal", past_88),
        ("causal and window of 2", past_88 & near_88),
        ("causal and document", past_88 & same_88),
    ):
        for layers in (1, 3):
            reach_88 = reach(mask_88, layers)
            leaks[name, layers] = (reach_88 & ~same_88).sum().item()
        print(f"{name:22}: {leaks[name, 1]:2} pairs across documents in one layer, "
              f"{leaks[name, 3]:2} in three")  # fmt: skip
    assert leaks["causal and document", 3] == 0
    assert reach_88.equal(past_88 & same_88)  # in three layers: no pair too few, either
    assert leaks["causal", 1] == 19
    # --8<-- [end:leaks]
