"""Comparing with nn.MultiheadAttention: copy the weights, or the test means nothing."""

# --8<-- [start:imports]
import torch
from torch import Tensor, nn

# --8<-- [end:imports]


# --8<-- [start:ours]
class Attention(nn.Module):
    """Multi-head attention with separate projections."""

    def __init__(self, D: int, H: int, scaled: bool = True) -> None:
        """Make four projections; `scaled=False` forgets the square root."""
        super().__init__()
        self.heads, self.scaled = H, scaled
        self.q, self.k, self.v, self.out = (nn.Linear(D, D) for _ in range(4))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Attend; return the shape of the input."""
        q_BHTK, k_BHTK, v_BHTK = (
            layer(x_BTD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        scale = q_BHTK.shape[-1] ** -0.5 if self.scaled else 1
        weight_BHTT = (scale * q_BHTK @ k_BHTK.mT).softmax(-1)
        return self.out((weight_BHTT @ v_BHTK).transpose(1, 2).flatten(2))


def copy_weights(ours: Attention, theirs: nn.MultiheadAttention) -> None:
    """Give `ours` the weights of PyTorch's module, which packs q, k, v in one matrix."""
    packed = zip(
        theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3), strict=True
    )
    for layer, (weight_DD, bias_D) in zip(
        (ours.q, ours.k, ours.v), packed, strict=True
    ):
        layer.load_state_dict({"weight": weight_DD, "bias": bias_D})
    ours.out.load_state_dict(theirs.out_proj.state_dict())


# --8<-- [end:ours]

if __name__ == "__main__":
    # --8<-- [start:compare]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    x_BTD = torch.randn(2, 5, 16)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    nn.init.normal_(theirs.in_proj_bias)  # zero at first: would hide a lost bias
    expected_BTD = theirs(x_BTD, x_BTD, x_BTD, need_weights=False)[0]
    gap = {}
    for name, copied, scaled in (
        ("not copied", False, True),
        ("copied", True, True),
        ("copied, no square root", True, False),
    ):
        ours = Attention(16, 4, scaled)
        if copied:
            copy_weights(ours, theirs)
        gap[name] = (ours(x_BTD) - expected_BTD).abs().max().item()
        print(f"{name:24} differs by {gap[name]:.1g}")
    assert gap["copied"] < 1e-5
    assert gap["not copied"] > 0.1
    assert gap["copied, no square root"] > 0.01
    # --8<-- [end:compare]

    # --8<-- [start:blind]
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    ours = Attention(16, 4, scaled=False)
    copy_weights(ours, theirs)
    x_B1D = torch.randn(2, 1, 16)  # one position: every weight is 1
    alike = (ours(x_B1D) - theirs(x_B1D, x_B1D, x_B1D)[0]).abs().max().item()
    print(f"one position: the wrong one differs by {alike:.1g}")
    assert alike < 1e-6
    # --8<-- [end:blind]
