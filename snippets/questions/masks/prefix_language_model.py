"""A prefix that sees itself whole: what the mask allows, and what it takes away."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.transformer.masks import causal, prefix


# --8<-- [start:layers]
def layers(x_1TD: Tensor, mask_TT: Tensor) -> Tensor:
    """Two layers of attention with residuals, no weights to learn; returns (1, T, D)."""
    for _ in range(2):
        x_1TD = x_1TD + F.scaled_dot_product_attention(*[x_1TD] * 3, mask_TT)
    return x_1TD


# --8<-- [end:layers]

if __name__ == "__main__":
    # --8<-- [start:counts]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    T, given = 8, 5  # 5 tokens of prompt, 3 of answer
    mask_TT = prefix(torch.tensor([given]), T, T)[0]
    seen = mask_TT.sum(-1).tolist()
    print("causal:", causal(T, T).sum(-1).tolist())
    print("prefix:", seen)
    assert seen == [given] * given + [6, 7, 8]
    # The target of query t is token t + 1: may t see it already?
    told_7 = mask_TT.diagonal(1)
    print("targets that are visible:", told_7.int().tolist())
    assert told_7.sum() == given - 1
    assert not told_7[given - 1 :].any()  # the answer is not
    # --8<-- [end:counts]

    # --8<-- [start:decode]
    torch.manual_seed(0)
    x_18D = torch.randn(1, 8, 16)
    whole_18D = layers(x_18D, prefix(torch.tensor([5]), 8, 8)[0])
    short_15D = layers(x_18D[:, :5], prefix(torch.tensor([5]), 5, 5)[0])
    gap = (whole_18D[:, :5] - short_15D).abs().max().item()
    print(f"three tokens of answer move the prompt's outputs by {gap:.1g}")
    assert gap < 1e-6  # so keys and values of the prompt can be cached
    # --8<-- [end:decode]

    # --8<-- [start:second-turn]
    torch.manual_seed(0)
    x_18D = torch.randn(1, 8, 16)
    moved = {}
    for name, first_55, longer_88 in (
        ("causal", causal(5, 5), causal(8, 8)),
        ("prefix", *(prefix(torch.tensor([n]), n, n)[0] for n in (5, 8))),
    ):
        before_15D = layers(x_18D[:, :5], first_55)
        after_18D = layers(x_18D, longer_88)
        moved[name] = (after_18D[:, :5] - before_15D).abs().max().item()
        print(f"{name}: three more tokens of prompt move the first five by "
              f"{moved[name]:.1g}")  # fmt: skip
    assert moved["causal"] < 1e-6
    assert moved["prefix"] > 0.1  # what was cached is stale
    # --8<-- [end:second-turn]
