"""The transformer block that several applications share, and its control without weights."""

# --8<-- [start:imports]
from copy import deepcopy

import torch
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
from snippets.foundations.scaled_dot_product import masked_softmax
from snippets.transformer.multi_head import MultiHeadAttention, split_heads


# --8<-- [start:uniform]
class UniformMixing(nn.Module):
    """The control: the interface of `MultiHeadAttention`, all visible weights equal."""

    def __init__(self, model_size: int, heads: int = 1) -> None:
        """Make the two projections that are left; `heads` changes nothing."""
        super().__init__()
        self.to_v = nn.Linear(model_size, model_size)
        self.to_out = nn.Linear(model_size, model_size)

    def forward(
        self, x_BTD: Tensor, y_BSD: Tensor | None = None, mask_BTS: Tensor | None = None
    ) -> Tensor:
        """Return the mean of what each position may see, projected: (B, T, D).

        A position that sees nothing gets the mean zero.
        """
        y_BSD = x_BTD if y_BSD is None else y_BSD
        if mask_BTS is None:
            mask_BTS = x_BTD.new_ones(
                len(x_BTD), x_BTD.shape[1], y_BSD.shape[1], dtype=torch.bool
            )
        seen_BTS = mask_BTS.to(x_BTD.dtype)
        weight_BTS = seen_BTS / seen_BTS.sum(-1, keepdim=True).clamp(min=1)
        return self.to_out(weight_BTS @ self.to_v(y_BSD))


# --8<-- [end:uniform]


# --8<-- [start:block]
class Block(nn.Module):
    """A pre-norm transformer block (Xiong et al. 2020; Vaswani et al. 2017, §3.1)."""

    def __init__(
        self,
        model_size: int,
        heads: int,
        cross: bool = False,
        mixer: type[nn.Module] = MultiHeadAttention,
        widen: int = 4,
    ) -> None:
        """Make self-attention, with `cross` attention to a second sequence, and the MLP.

        `mixer` makes both attentions from model_size and heads. Raises ValueError
        unless heads divides model_size.
        """
        super().__init__()
        self.norm = nn.LayerNorm(model_size)
        self.mix = mixer(model_size, heads)
        self.cross_norm = nn.LayerNorm(model_size) if cross else None
        self.cross = mixer(model_size, heads) if cross else None
        self.mlp = nn.Sequential(
            nn.LayerNorm(model_size),
            nn.Linear(model_size, widen * model_size),
            nn.GELU(),
            nn.Linear(widen * model_size, model_size),
        )

    def forward(
        self,
        x_BTD: Tensor,
        mask_BTT: Tensor | None = None,
        y_BSD: Tensor | None = None,
        mask_BTS: Tensor | None = None,
    ) -> Tensor:
        """Return (B, T, D); masks are boolean, True = may attend.

        Raises ValueError when y is given to a block without cross-attention, or is
        missing in one with it.
        """
        if (y_BSD is None) != (self.cross is None):
            raise ValueError(
                "y is missing: this block has cross-attention"
                if y_BSD is None
                else "y was given: this block has no cross-attention"
            )
        x_BTD = x_BTD + self.mix(self.norm(x_BTD), None, mask_BTT)
        if self.cross is not None:
            x_BTD = x_BTD + self.cross(self.cross_norm(x_BTD), y_BSD, mask_BTS)
        return x_BTD + self.mlp(x_BTD)


# --8<-- [end:block]


# --8<-- [start:weights-of]
def weights_of(
    layer: MultiHeadAttention,
    x_BTD: Tensor,
    y_BSD: Tensor | None = None,
    mask_BTS: Tensor | None = None,
) -> Tensor:
    """Return the weights (B, H, T, S) with which the layer mixes, rows summing to one."""
    y_BSD = x_BTD if y_BSD is None else y_BSD
    q_BHTK = split_heads(layer.to_q(x_BTD), layer.heads)
    k_BHSK = split_heads(layer.to_k(y_BSD), layer.heads)
    score_BHTS = torch.einsum("BHTK,BHSK->BHTS", q_BHTK, k_BHSK)
    score_BHTS = score_BHTS / q_BHTK.shape[-1] ** 0.5
    mask_BHTS = None
    if mask_BTS is not None:
        mask_BHTS = mask_BTS.unsqueeze(1).expand(score_BHTS.shape)
    return masked_softmax(score_BHTS, mask_BHTS)


# --8<-- [end:weights-of]


# --8<-- [start:equal-weights]
def equal_weights(model: nn.Module, *scorers: str) -> nn.Module:
    """Return a copy that weighs all it sees alike: its scores are all 0.

    `scorers` end the names of the modules whose output makes the scores, a factor
    ("to_q") or the scores themselves ("energy"). Raises ValueError when one fits none.
    """
    model = deepcopy(model)
    for scorer in scorers:
        found = [
            module
            for name, module in model.named_modules()
            if f".{name}".endswith(f".{scorer}")
        ]
        if not found:
            raise ValueError(f"no module of the model is named {scorer!r}")
        for module in found:
            for part_any in module.parameters():
                nn.init.zeros_(part_any)
    return model


# --8<-- [end:equal-weights]
