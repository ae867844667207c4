"""Learned positions: one trained row per position, and no row beyond the last."""

# --8<-- [start:imports]
import torch
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
import matplotlib.pyplot as plt

from snippets.foundations.scaled_dot_product import attend
from snippets.properties.cost import count_flops, peak_bytes, plot_growth


# --8<-- [start:check-positions]
def check_positions(position_BT: Tensor, shape: tuple[int, int], longest: int) -> None:
    """Raise a ValueError for another shape, no integers, or a row that is not there."""
    if tuple(position_BT.shape) != shape:
        came = tuple(position_BT.shape)
        raise ValueError(f"position has shape {came}, expected {shape}")
    if position_BT.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"position has {position_BT.dtype}, expected int32 or int64")
    # On a GPU an index beyond the table poisons the process; -1 would wrap silently.
    for position in position_BT.aminmax() if position_BT.numel() else ():
        if not 0 <= position < longest:
            raise ValueError(
                f"position {position} has no row: the table ends at {longest - 1}"
            )


# --8<-- [end:check-positions]


# --8<-- [start:position-ids]
def position_ids(keep_BS: Tensor, newest: int | None = None) -> Tensor:
    """Count the tokens of each row from 0, passing over padding.

    `keep` is boolean (B, S), True for what is no padding, and covers the cache, too.
    Padding gets 0, a row that exists; a mask must hide it. Returns (B, S) in int64, or
    (B, T) of the `newest` T tokens. Raises ValueError for another kind of mask.
    """
    if keep_BS.dim() != 2 or keep_BS.dtype != torch.bool:
        came = f"{tuple(keep_BS.shape)} and {keep_BS.dtype}"
        raise ValueError(f"keep has {came}, expected (batch, positions) and torch.bool")
    S = keep_BS.shape[1]
    T = S if newest is None else newest
    if not 0 <= T <= S:
        raise ValueError(f"newest is {newest}, expected 0 to {S}")
    count_BS = keep_BS.long().cumsum(1)
    return (count_BS - 1).masked_fill(~keep_BS, 0)[:, S - T :]


# --8<-- [end:position-ids]


# --8<-- [start:learned-positions]
class LearnedPositions(nn.Module):
    """A table with a row for each position, added to the embeddings."""

    def __init__(self, longest: int, size: int, std: float = 0.02) -> None:
        """Make the table, normal with deviation std, 0.02 as in BERT.

        Raises ValueError when longest or size is less than 1.
        """
        super().__init__()
        if longest < 1 or size < 1:
            raise ValueError(
                f"the table is {longest} × {size}, expected at least 1 × 1"
            )
        self.table = nn.Parameter(torch.empty(longest, size).normal_(std=std))

    def forward(self, x_BTD: Tensor, position_BT: Tensor | None = None) -> Tensor:
        """Add the rows of `position`, or rows 0 to T - 1 without it; returns (B, T, D).

        Raises ValueError when sizes do not fit or a position has no row.
        """
        longest, size = self.table.shape
        if x_BTD.dim() != 3 or x_BTD.shape[2] != size:
            raise ValueError(
                f"x has shape {tuple(x_BTD.shape)}, expected (batch, positions, {size})"
            )
        B, T, _ = x_BTD.shape
        if position_BT is None:
            position_BT = torch.arange(T, device=x_BTD.device).expand(B, T)
        check_positions(position_BT, (B, T), longest)
        return x_BTD + nn.functional.embedding(position_BT, self.table)


# --8<-- [end:learned-positions]


# --8<-- [start:mix]
def mix(x_BTD: Tensor, causal: bool) -> Tensor:
    """Let each token attend to all, or to itself and the past, without projections."""
    B, T, _ = x_BTD.shape
    x_B1TD = x_BTD.unsqueeze(1)
    mask_TT = torch.ones(T, T, dtype=torch.bool, device=x_BTD.device)
    mask_TT = mask_TT.tril() if causal else mask_TT
    return attend(x_B1TD, x_B1TD, x_B1TD, mask_TT.expand(B, 1, T, T)).squeeze(1)


# --8<-- [end:mix]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    B, T, D = 2, 5, 8
    add = LearnedPositions(longest=16, size=D)
    x_BTD = torch.randn(B, T, D)
    keep_BT = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]).bool()
    print("positions:", position_ids(keep_BT).tolist())
    print("one step later, newest only:", end=" ")
    print(position_ids(torch.cat([keep_BT, keep_BT[:, -1:]], 1), newest=1).tolist())
    print("rows:", add.table.shape[0], " output:", tuple(add(x_BTD).shape))
    # --8<-- [end:first-look]

    # --8<-- [start:order]
    order_T = torch.tensor([3, 0, 4, 1, 2])
    for name, causal in (("both directions", False), ("causal", True)):
        out_BTD, moved_BTD = mix(x_BTD, causal), mix(x_BTD[:, order_T], causal)
        print(
            f"{name}: equivariant {moved_BTD.allclose(out_BTD[:, order_T], atol=1e-5)},"
            f" invariant {moved_BTD.allclose(out_BTD, atol=1e-5)},"
            f" mean invariant {moved_BTD.mean(1).allclose(out_BTD.mean(1), atol=1e-5)}"
        )
    # --8<-- [end:order]

    # --8<-- [start:clock]
    first_BT1 = torch.zeros(B, T, 1)
    first_BT1[:, 0] = 1  # the value says "I am the first", queries and keys are zero
    q_B1T1 = torch.zeros(B, 1, T, 1)
    causal_B1TT = torch.ones(B, 1, T, T, dtype=torch.bool).tril()
    clock_B1T1 = attend(q_B1T1, q_B1T1, first_BT1.unsqueeze(1), causal_B1TT)
    print(
        "causal, no positions:", [f"{w:.3f}" for w in clock_B1T1[0, 0, :, 0].tolist()]
    )
    # --8<-- [end:clock]

    # --8<-- [start:depth]
    swapped_BTD = x_BTD[:, torch.tensor([1, 0, 2, 3, 4])]  # the last token stays last
    for layers in (1, 2):
        a_BTD, b_BTD = x_BTD, swapped_BTD
        for _ in range(layers):
            a_BTD, b_BTD = a_BTD + mix(a_BTD, True), b_BTD + mix(b_BTD, True)
        gap = (a_BTD - b_BTD)[:, -1].abs().max()
        print(
            f"{layers} causal layers: swapping tokens 0 and 1 moves the last by {gap:.1e}"
        )
    # --8<-- [end:depth]

    # --8<-- [start:cost]
    lengths = [128, 256, 512, 1024]
    gpt2 = LearnedPositions(longest=1024, size=768)
    print("parameters of GPT-2's table:", gpt2.table.numel())
    print("FLOPs in matrix products:", count_flops(lambda: add(x_BTD)))
    peaks = [peak_bytes(lambda n=n: gpt2(torch.zeros(1, n, 768))) for n in lengths]
    plot_growth(lengths, {"peak of the sum": (peaks, 1)})
    plt.ylabel("bytes")
    plt.show()
    # --8<-- [end:cost]

    # --8<-- [start:too-long]
    for name, position in (("nn.Embedding", 16), ("plain indexing", -1)):
        try:
            if name == "nn.Embedding":
                nn.functional.embedding(torch.tensor([position]), add.table)
            else:
                same = add.table[position].equal(add.table[15])
                print(f"{name}: table[-1] is silently row 15: {same}")
        except IndexError as error:
            print(f"{name}: {error}")
    try:
        add(torch.zeros(1, 17, D))
    except ValueError as error:
        print("LearnedPositions:", error)
    # --8<-- [end:too-long]

    # --8<-- [start:left-padding]
    padded_BTD = x_BTD.clone()
    padded_BTD[1] = torch.cat([torch.zeros(2, D), x_BTD[1, :3]])  # two pads on the left
    alone_13D = add(x_BTD[1:, :3])
    for name, position_BT in (("ignored", None), ("counted", position_ids(keep_BT))):
        gap = (add(padded_BTD, position_BT)[1:, 2:] - alone_13D).abs().max()
        print(f"padding {name}: a left-padded row moves by {gap:.3f}")
    # --8<-- [end:left-padding]

    # --8<-- [start:untrained]
    add.zero_grad()
    add(x_BTD).square().sum().backward()
    trained = add.table.grad.abs().sum(1).count_nonzero().item()
    print(f"{trained} of 16 rows got a gradient from sequences of length {T}")
    # --8<-- [end:untrained]

    # --8<-- [start:init]
    word_any = nn.init.normal_(torch.empty(1000, D), std=0.02)
    default_any = nn.Embedding(16, D).weight
    for name, table_any in (("nn.Embedding", default_any), ("here", add.table)):
        ratio = table_any.std() / word_any.std()
        print(f"{name}: positions are {ratio:.1f} times as large as words of std 0.02")
    # --8<-- [end:init]
