"""Self-attention: queries, keys and values are three views of one sequence."""

# --8<-- [start:imports]
from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# --8<-- [end:imports]
# isort: split
from snippets.foundations.scaled_dot_product import attend


# --8<-- [start:self-attention]
class SelfAttention(nn.Module):
    """One head over one sequence, without position codes (Vaswani et al. 2017)."""

    def __init__(self, model_size: int, head_size: int) -> None:
        """Make three projections from `model_size` to `head_size`."""
        super().__init__()
        self.to_q = nn.Linear(model_size, head_size, bias=False)
        self.to_k = nn.Linear(model_size, head_size, bias=False)
        self.to_v = nn.Linear(model_size, head_size, bias=False)

    def forward(self, x_BTD: Tensor, mask_BTS: Tensor | None = None) -> Tensor:
        """Let each position attend to all of x; returns (B, T, V).

        The mask is boolean, True = may attend. Raises ValueError when x does not
        have the size of the projections.
        """
        if x_BTD.ndim != 3 or x_BTD.shape[2] != self.to_q.in_features:
            raise ValueError(
                f"x has shape {tuple(x_BTD.shape)}, "
                f"expected (batch, positions, {self.to_q.in_features})"
            )
        q_B1TK, k_B1SK, v_B1SV = (
            project(x_BTD).unsqueeze(1) for project in (self.to_q, self.to_k, self.to_v)
        )
        mask_B1TS = None if mask_BTS is None else mask_BTS.unsqueeze(1)
        return attend(q_B1TK, k_B1SK, v_B1SV, mask_B1TS).squeeze(1)


# --8<-- [end:self-attention]


# --8<-- [start:reach]
def reach(layer: Callable[[Tensor], Tensor], x_1TD: Tensor) -> Tensor:
    """Mark which outputs of a layer depend on which inputs; returns booleans (T, S)."""
    jacobian_TV1SD = torch.autograd.functional.jacobian(
        lambda x_BTD: layer(x_BTD).squeeze(0), x_1TD
    )
    return jacobian_TV1SD.abs().amax(dim=(1, 2, 4)) > 0


# --8<-- [end:reach]


# --8<-- [start:count]
def count_flops(T: int, D: int = 64) -> int:
    """Count the FLOPs of one layer with K = V = D on T positions."""
    with FlopCounterMode(display=False) as counter:
        SelfAttention(D, D)(torch.randn(1, T, D))
    return counter.get_total_flops()


# --8<-- [end:count]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    layer = SelfAttention(model_size=16, head_size=16)
    x_1TD = torch.randn(1, 12, 16)
    print("input", tuple(x_1TD.shape), "output", tuple(layer(x_1TD).shape))
    # --8<-- [end:first-look]

    # --8<-- [start:symmetric]
    q_TK, k_TK = layer.to_q(x_1TD[0]), layer.to_k(x_1TD[0])
    for name, score_TT in (
        ("two projections", q_TK @ k_TK.T),
        ("Q = K", q_TK @ q_TK.T),
    ):
        gap = (score_TT - score_TT.T).abs().max().item()
        own = (score_TT.argmax(dim=1) == torch.arange(12)).sum().item()
        print(f"{name}: asymmetry {gap:.2f}, {own} of 12 prefer themselves")
    # --8<-- [end:symmetric]

    # --8<-- [start:order]
    order_T = torch.randperm(12)
    out_1TV, moved_1TV = layer(x_1TD), layer(x_1TD[:, order_T])
    mean_1V, moved_mean_1V = out_1TV.mean(dim=1), moved_1TV.mean(dim=1)
    print("equivariant:", moved_1TV.allclose(out_1TV[:, order_T], atol=1e-6))
    print("invariant:", moved_1TV.allclose(out_1TV, atol=1e-6))
    print("invariant after mean pooling:", moved_mean_1V.allclose(mean_1V, atol=1e-6))
    # --8<-- [end:order]

    # --8<-- [start:causal-order]
    causal_1TS = torch.ones(1, 12, 12, dtype=torch.bool).tril()
    once_1TV = layer(x_1TD, causal_1TS)
    swapped_1TD = x_1TD[:, [1, 0, *range(2, 12)]]
    swapped_once_1TV = layer(swapped_1TD, causal_1TS)
    twice_1TV = layer(once_1TV, causal_1TS)
    swapped_twice_1TV = layer(swapped_once_1TV, causal_1TS)
    for depth, left_1TV, right_1TV in (
        (1, once_1TV, swapped_once_1TV),
        (2, twice_1TV, swapped_twice_1TV),
    ):
        change = (left_1TV - right_1TV)[0, -1].abs().max().item()
        print(f"{depth} causal layer(s): the last output moves by {change:.3f}")
    # --8<-- [end:causal-order]

    # --8<-- [start:cost]
    for length in (16, 64, 96, 256, 1024):
        total, pairs = count_flops(length), 4 * length**2 * 64
        assert total == pairs + 6 * length * 64**2
        print(
            f"T = {length:4}: {total / 1e6:7.2f} MFLOPs, {pairs / total:.0%} in pairs"
        )
    # --8<-- [end:cost]

    # --8<-- [start:reach-figure]
    conv = nn.Conv1d(16, 16, kernel_size=3, padding=1)
    rnn = nn.RNN(16, 16, batch_first=True)
    _, axes = plt.subplots(1, 3)
    for axis, (title, apply) in zip(
        axes,
        {
            "self-attention": layer,
            "convolution, width 3": lambda x_BTD: conv(x_BTD.mT).mT,
            "RNN": lambda x_BTD: rnn(x_BTD)[0],
        }.items(),
        strict=True,
    ):
        reach_TS = reach(apply, x_1TD)
        print(f"{title}: {reach_TS.sum().item()} of 144 pairs")
        axis.imshow(reach_TS.cpu().numpy(), cmap="viridis", vmin=0, vmax=1)
        axis.set(title=title, xlabel="input s", ylabel="output t")
    plt.tight_layout()
    plt.show()
    # --8<-- [end:reach-figure]
