"""Cross-attention: one sequence asks, another answers, whatever their sizes."""

# --8<-- [start:imports]
from functools import partial

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
from snippets.foundations.scaled_dot_product import attend, masked_softmax
from snippets.properties.cost import count_flops, plot_growth


# --8<-- [start:check]
class Memory:
    """What is kept of a source: keys and values (B, H, S, K), and which of them count."""

    def __init__(self, k_BHSK: Tensor, v_BHSK: Tensor, keep_BS: Tensor | None) -> None:
        """Keep all three; `keep` is None where everything counts."""
        self.k_BHSK, self.v_BHSK, self.keep_BS = k_BHSK, v_BHSK, keep_BS


def check_sequence(name: str, given_any: Tensor, size: int) -> None:
    """Raise ValueError unless it is (batch, positions, size)."""
    shape = tuple(given_any.shape)
    if len(shape) != 3 or shape[2] != size:
        raise ValueError(
            f"{name} has shape {shape}, expected (batch, positions, {size})"
        )


def check_keep(keep_BS: Tensor, y_BSM: Tensor) -> None:
    """Raise ValueError unless it is boolean with one entry for each key."""
    if keep_BS.dtype != torch.bool:
        raise ValueError(f"keep has {keep_BS.dtype}, expected torch.bool")
    shape, expected = tuple(keep_BS.shape), tuple(y_BSM.shape[:2])
    if shape != expected:
        raise ValueError(f"keep has shape {shape}, y has {expected}: they must agree")


# --8<-- [end:check]


# --8<-- [start:cross-attention]
class CrossAttention(nn.Module):
    """Attend from x, of size D, to a source y, of size M (Vaswani et al. 2017, §3.2.3)."""

    def __init__(self, query_size: int, source_size: int, heads: int) -> None:
        """Make four projections; raise ValueError unless heads divides query_size."""
        super().__init__()
        if heads < 1 or query_size % heads:
            raise ValueError(
                f"heads is {heads}, query_size is {query_size}: heads must divide it"
            )
        self.heads = heads
        self.to_q = nn.Linear(query_size, query_size)
        self.to_k = nn.Linear(source_size, query_size)
        self.to_v = nn.Linear(source_size, query_size)
        self.to_out = nn.Linear(query_size, query_size)

    def remember(self, y_BSM: Tensor, keep_BS: Tensor | None = None) -> Memory:
        """Return keys and values of the source, to be computed once and read often.

        `keep` is boolean, True for what is no padding. Raises ValueError when sizes do
        not fit.
        """
        check_sequence("y", y_BSM, self.to_k.in_features)
        if keep_BS is not None:
            check_keep(keep_BS, y_BSM)
            # Padding may hold anything. Clear it, or 0 · NaN reaches the weights.
            y_BSM = y_BSM.masked_fill(~keep_BS.unsqueeze(-1), 0.0)
        k_BHSK = self.to_k(y_BSM).unflatten(2, (self.heads, -1)).transpose(1, 2)
        v_BHSK = self.to_v(y_BSM).unflatten(2, (self.heads, -1)).transpose(1, 2)
        return Memory(k_BHSK, v_BHSK, keep_BS)

    def read(self, x_BTD: Tensor, memory: Memory) -> Tensor:
        """Attend from x to a remembered source; returns (B, T, D).

        A sample whose source is all padding gets the bias of the output projection.
        Raises ValueError when sizes do not fit.
        """
        check_sequence("x", x_BTD, self.to_q.in_features)
        B, T, S = len(x_BTD), x_BTD.shape[1], memory.k_BHSK.shape[2]
        if len(memory.k_BHSK) != B:
            raise ValueError(
                f"x has batch {B}, the source has {len(memory.k_BHSK)}: they must agree"
            )
        mask_BHTS = None
        if memory.keep_BS is not None:
            mask_BHTS = memory.keep_BS[:, None, None].expand(B, self.heads, T, S)
        q_BHTK = self.to_q(x_BTD).unflatten(2, (self.heads, -1)).transpose(1, 2)
        out_BHTK = attend(q_BHTK, memory.k_BHSK, memory.v_BHSK, mask_BHTS)
        return self.to_out(out_BHTK.transpose(1, 2).flatten(2))

    def forward(
        self, x_BTD: Tensor, y_BSM: Tensor, keep_BS: Tensor | None = None
    ) -> Tensor:
        """Remember the source and read it once; returns (B, T, D)."""
        return self.read(x_BTD, self.remember(y_BSM, keep_BS))


# --8<-- [end:cross-attention]


# --8<-- [start:steps]
def step_flops(S: int, reuse: bool, D: int = 64, M: int = 64) -> int:
    """Count the FLOPs of one decoding step that reads a source of S positions."""
    layer = CrossAttention(D, M, heads=4)
    x_11D, y_1SM = torch.randn(1, 1, D), torch.randn(1, S, M)
    memory = layer.remember(y_1SM)
    return count_flops(
        partial(layer.read, x_11D, memory) if reuse else partial(layer, x_11D, y_1SM)
    )


# --8<-- [end:steps]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    layer = CrossAttention(query_size=32, source_size=48, heads=4)
    x_BTD, y_BSM = torch.randn(2, 5, 32), torch.randn(2, 7, 48)
    memory = layer.remember(y_BSM)
    print("out", tuple(layer(x_BTD, y_BSM).shape), "keys", tuple(memory.k_BHSK.shape))
    # --8<-- [end:first-look]

    # --8<-- [start:cost]
    for length in (64, 256, 1024):
        again, once = step_flops(length, reuse=False), step_flops(length, reuse=True)
        print(
            f"S = {length:4}: {again:8} FLOPs a step, {once:6} with the keys and values"
            f" kept; {again / once:.0f} times"
        )
    # --8<-- [end:cost]

    # --8<-- [start:growth]
    lengths = [512, 1024, 2048, 4096]
    again = [step_flops(length, reuse=False) for length in lengths]
    once = [step_flops(length, reuse=True) for length in lengths]
    plot_growth(lengths, {"projected again": (again, 1), "kept": (once, 1)})
    plt.ylabel("FLOPs of a decoding step")
    plt.show()
    # --8<-- [end:growth]

    # --8<-- [start:dropped-mask]
    keep_BS = torch.arange(7).expand(2, 7) < 4
    alone_BTD = layer(x_BTD, y_BSM[:, :4])
    for name, out_BTD in (
        ("keep passed on", layer(x_BTD, y_BSM, keep_BS)),
        ("keep dropped", layer(x_BTD, y_BSM)),
    ):
        gap = (out_BTD - alone_BTD).abs().max().item()
        print(f"{name}: differs from the source without padding by {gap:.2f}")
    # --8<-- [end:dropped-mask]

    # --8<-- [start:causal]
    q_BHTK = layer.to_q(x_BTD).unflatten(2, (4, -1)).transpose(1, 2)
    causal_BHTS = torch.ones(2, 4, 5, 7, dtype=torch.bool).tril()
    score_BHTS = q_BHTK @ memory.k_BHSK.mT / 8**0.5
    for name, mask_BHTS in (("no mask", None), ("causal", causal_BHTS)):
        weight_BHTS = masked_softmax(score_BHTS, mask_BHTS)
        print(f"{name}: query t sees", (weight_BHTS[0, 0] > 0).sum(-1).tolist())
    # --8<-- [end:causal]

    try:
        # --8<-- [start:wrong-length]
        B, T = x_BTD.shape[:2]
        print(layer.to_k(y_BSM[:, :T]).view(B, T, 4, -1).shape)  # as long as x
        print(layer.to_k(y_BSM).view(B, T, 4, -1).shape)  # longer
        # --8<-- [end:wrong-length]
    except RuntimeError as error:
        print(error)
