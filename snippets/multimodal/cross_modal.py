"""Cross-modal attention: one modality asks, another answers, a gate lets it in."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
# --8<-- [start:tools]
from torch.utils.flop_counter import FlopCounterMode

# --8<-- [end:tools]
# isort: split
from snippets.foundations.scaled_dot_product import attend, masked_softmax


# --8<-- [start:check-stream]
def check_stream(name: str, x_BTD: Tensor, mask_BT: Tensor, size: int) -> None:
    """Raise a ValueError when a stream of vectors or its mask has another shape."""
    if x_BTD.ndim != 3 or x_BTD.shape[-1] != size:
        raise ValueError(
            f"{name} has shape {tuple(x_BTD.shape)}, expected (batch, positions, {size})"
        )
    if mask_BT.dtype != torch.bool or mask_BT.shape != x_BTD.shape[:2]:
        raise ValueError(
            f"{name}_mask is {mask_BT.dtype} of shape {tuple(mask_BT.shape)}, "
            f"expected torch.bool of shape {tuple(x_BTD.shape[:2])}"
        )


# --8<-- [end:check-stream]


# --8<-- [start:cross-modal]
class CrossModalAttention(nn.Module):
    """Add to each x what it reads in y, times tanh(gate) (Alayrac et al. 2022, §2.2).

    x (B, T, D) asks, y (B, S, I) answers; the sizes D and I may differ. The masks
    (B, T) and (B, S) are True where there is no padding. Returns (B, T, D). The gate
    starts at 0: at first the output is x. Where no y is visible, it always is.
    """

    def __init__(self, x_size: int, y_size: int, model_size: int, heads: int):
        """Make the four projections, without biases, and the gate."""
        super().__init__()
        if heads < 1 or model_size % heads:
            raise ValueError(f"heads is {heads}, expected a divisor of {model_size}")
        self.heads = heads
        self.to_query = nn.Linear(x_size, model_size, bias=False)
        self.to_key = nn.Linear(y_size, model_size, bias=False)
        self.to_value = nn.Linear(y_size, model_size, bias=False)
        self.to_out = nn.Linear(model_size, x_size, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))

    def project(self, x_BTD, y_BSI, x_mask_BT=None, y_mask_BS=None):
        """Return queries, keys and values per head, and the mask (B, H, T, S)."""
        if x_mask_BT is None:
            x_mask_BT = x_BTD.new_ones(x_BTD.shape[:2], dtype=torch.bool)
        if y_mask_BS is None:
            y_mask_BS = y_BSI.new_ones(y_BSI.shape[:2], dtype=torch.bool)
        check_stream("x", x_BTD, x_mask_BT, self.to_query.in_features)
        check_stream("y", y_BSI, y_mask_BS, self.to_key.in_features)
        if len(x_BTD) != len(y_BSI):
            raise ValueError(f"y has batch {len(y_BSI)}, x has {len(x_BTD)}")
        # Padding may hold anything. Clear it, or 0 · NaN reaches the projections.
        x_BTD = x_BTD.masked_fill(~x_mask_BT.unsqueeze(2), 0.0)
        y_BSI = y_BSI.masked_fill(~y_mask_BS.unsqueeze(2), 0.0)
        q_BHTK = self.to_query(x_BTD).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k_BHSK = self.to_key(y_BSI).unflatten(2, (self.heads, -1)).transpose(1, 2)
        v_BHSK = self.to_value(y_BSI).unflatten(2, (self.heads, -1)).transpose(1, 2)
        mask_BTS = x_mask_BT.unsqueeze(2) & y_mask_BS.unsqueeze(1)
        mask_BHTS = mask_BTS.unsqueeze(1).expand(-1, self.heads, -1, -1)
        return q_BHTK, k_BHSK, v_BHSK, mask_BHTS

    def weights(self, x_BTD, y_BSI, x_mask_BT=None, y_mask_BS=None) -> Tensor:
        """Return how much each x reads each y, per head: (B, H, T, S)."""
        q_BHTK, k_BHSK, _, mask_BHTS = self.project(x_BTD, y_BSI, x_mask_BT, y_mask_BS)
        score_BHTS = torch.einsum("BHTK,BHSK->BHTS", q_BHTK, k_BHSK)
        return masked_softmax(score_BHTS / math.sqrt(q_BHTK.shape[-1]), mask_BHTS)

    def forward(self, x_BTD, y_BSI, x_mask_BT=None, y_mask_BS=None) -> Tensor:
        """Return x plus what it read, through the gate."""
        read_BHTK = attend(*self.project(x_BTD, y_BSI, x_mask_BT, y_mask_BS))
        read_BTD = self.to_out(read_BHTK.transpose(1, 2).flatten(2))
        return x_BTD + self.gate.tanh() * read_BTD


# --8<-- [end:cross-modal]


# --8<-- [start:co-attention]
class CoAttention(nn.Module):
    """Let two modalities read each other in one layer (Lu et al. 2019, §2.2).

    Takes x (B, T, D) and y (B, S, I), returns both in their own shapes. Both sides
    read what the other was before this layer.
    """

    def __init__(self, x_size: int, y_size: int, model_size: int, heads: int):
        """Make one cross-modal attention for each direction."""
        super().__init__()
        self.x_reads = CrossModalAttention(x_size, y_size, model_size, heads)
        self.y_reads = CrossModalAttention(y_size, x_size, model_size, heads)

    def forward(self, x_BTD, y_BSI, x_mask_BT=None, y_mask_BS=None):
        """Return the new x and the new y."""
        return (
            self.x_reads(x_BTD, y_BSI, x_mask_BT, y_mask_BS),
            self.y_reads(y_BSI, x_BTD, y_mask_BS, x_mask_BT),
        )


# --8<-- [end:co-attention]


# --8<-- [start:flops]
def count_flops(layer: CrossModalAttention, texts: int, patches: int) -> int:
    """Count the FLOPs of one pair of so many text tokens and image patches."""
    x_BTD = torch.randn(1, texts, layer.to_query.in_features)
    y_BSI = torch.randn(1, patches, layer.to_key.in_features)
    with FlopCounterMode(display=False) as counter:
        layer(x_BTD, y_BSI)
    return counter.get_total_flops()


# --8<-- [end:flops]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    text_BTD, image_BSI = torch.randn(2, 4, 32), torch.randn(2, 9, 48)
    text_mask_BT = torch.ones(2, 4, dtype=torch.bool)
    text_mask_BT[0, 3] = False  # the first text is one token shorter
    image_mask_BS = torch.ones(2, 9, dtype=torch.bool)
    image_mask_BS[1] = False  # the second pair has no image
    layer = CrossModalAttention(x_size=32, y_size=48, model_size=64, heads=4)
    print("gate 0, output is the text:", layer(text_BTD, image_BSI).equal(text_BTD))
    layer.gate.data.fill_(1.0)
    out_BTD = layer(text_BTD, image_BSI, text_mask_BT, image_mask_BS)
    weight_BHTS = layer.weights(text_BTD, image_BSI, text_mask_BT, image_mask_BS)
    for pair in (0, 1):
        print(
            f"gate 1, pair {pair}: output is the text:",
            out_BTD[pair].equal(text_BTD[pair]),
            " sums of weights:",
            [round(x, 3) for x in weight_BHTS[pair, 0].sum(1).tolist()],
        )
    # --8<-- [end:first-look]

    # --8<-- [start:both-ways]
    both = CoAttention(x_size=32, y_size=48, model_size=64, heads=4)
    new_text_BTD, new_image_BSI = both(text_BTD, image_BSI)
    print("text", tuple(new_text_BTD.shape), "image", tuple(new_image_BSI.shape))
    # --8<-- [end:both-ways]

    # --8<-- [start:cost]
    print("  T     S       T·S      (T+S)²   ratio   counted MFLOPs")
    for texts, patches in ((32, 64), (32, 256), (32, 1024)):
        counted = count_flops(layer, texts, patches)
        assert counted == 4 * 64 * (texts * patches + texts * 32 + patches * 48)
        cross, joint = texts * patches, (texts + patches) ** 2
        print(
            f"{texts:3} {patches:5} {cross:9,} {joint:11,} {joint / cross:7.1f}"
            f" {counted / 1e6:16.2f}"
        )
    kilobytes = 2 * 4096 * 2 / 1024  # keys and values, 2 bytes a number
    print(f"model size 4096, bfloat16: {kilobytes:.0f} KiB per patch and layer")
    # --8<-- [end:cost]

    # --8<-- [start:mha-nan]
    theirs = nn.MultiheadAttention(32, 4, kdim=48, vdim=48, batch_first=True)
    for need_weights in (True, False):
        read_BTD, _ = theirs(
            text_BTD,
            image_BSI,
            image_BSI,
            key_padding_mask=~image_mask_BS,  # there, True = may not attend
            need_weights=need_weights,
        )
        nans = read_BTD.isnan().sum((1, 2)).tolist()
        print(f"need_weights={need_weights!s:5} NaNs per pair: {nans}")
    # --8<-- [end:mha-nan]

    # --8<-- [start:double-zero]
    for std in (0.1, 0.0):
        learner = CrossModalAttention(x_size=32, y_size=48, model_size=64, heads=4)
        nn.init.normal_(learner.to_out.weight, std=std)
        descent = torch.optim.SGD(learner.parameters(), lr=0.1)
        for _ in range(50):
            loss = (learner(text_BTD, image_BSI) - 1).square().mean()
            descent.zero_grad()
            loss.backward()
            descent.step()
        print(
            f"to_out drawn with std {std}: gate after 50 steps {learner.gate.item():.4f}"
        )
    # --8<-- [end:double-zero]

    # --8<-- [start:no-places]
    shuffled_BSI = image_BSI[:, torch.randperm(9)]
    moved = (layer(text_BTD, image_BSI) - layer(text_BTD, shuffled_BSI)).abs().max()
    print(f"patches shuffled: the output moves by {moved:.0e}")
    # --8<-- [end:no-places]
