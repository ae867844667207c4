"""Multi-head attention: several small attentions side by side, mixed by W_O."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# --8<-- [end:imports]
# isort: split
from snippets.foundations.scaled_dot_product import attend


# --8<-- [start:multi-head]
def split_heads(x_BTD: Tensor, heads: int) -> Tensor:
    """Cut the last axis into heads; returns (B, H, T, K) with K = D / H."""
    return x_BTD.unflatten(2, (heads, -1)).transpose(1, 2)


def merge_heads(x_BHTK: Tensor) -> Tensor:
    """Undo `split_heads`; returns (B, T, D)."""
    return x_BHTK.transpose(1, 2).flatten(2)


class MultiHeadAttention(nn.Module):
    """Attention in `heads` projections of size D / H (Vaswani et al. 2017, §3.2.2)."""

    def __init__(self, model_size: int, heads: int) -> None:
        """Make four projections; raise ValueError unless heads divides model_size."""
        super().__init__()
        if heads < 1 or model_size % heads:
            raise ValueError(
                f"heads is {heads}, model_size is {model_size}: heads must divide it"
            )
        self.heads = heads
        self.to_q = nn.Linear(model_size, model_size)
        self.to_k = nn.Linear(model_size, model_size)
        self.to_v = nn.Linear(model_size, model_size)
        self.to_out = nn.Linear(model_size, model_size)

    def forward(
        self, x_BTD: Tensor, y_BSD: Tensor | None = None, mask_BTS: Tensor | None = None
    ) -> Tensor:
        """Attend from x to y, or to x itself without y; returns (B, T, D).

        The mask is boolean, True = may attend, the same for all heads. Raises
        ValueError when sizes do not fit.
        """
        y_BSD = x_BTD if y_BSD is None else y_BSD
        for name, shape in (("x", x_BTD.shape), ("y", y_BSD.shape)):
            if len(shape) != 3 or shape[2] != self.to_q.in_features:
                raise ValueError(
                    f"{name} has shape {tuple(shape)}, "
                    f"expected (batch, positions, {self.to_q.in_features})"
                )
        B, T, S = len(x_BTD), x_BTD.shape[1], y_BSD.shape[1]
        if len(y_BSD) != B:
            raise ValueError(f"y has batch {len(y_BSD)}, x has {B}: they must agree")
        mask_BHTS = None
        if mask_BTS is not None:
            if mask_BTS.shape != (B, T, S):
                raise ValueError(
                    f"mask has shape {tuple(mask_BTS.shape)}, expected {(B, T, S)}"
                )
            mask_BHTS = mask_BTS.unsqueeze(1).expand(B, self.heads, T, S)
        q_BHTK = split_heads(self.to_q(x_BTD), self.heads)
        k_BHSK = split_heads(self.to_k(y_BSD), self.heads)
        v_BHSK = split_heads(self.to_v(y_BSD), self.heads)
        return self.to_out(merge_heads(attend(q_BHTK, k_BHSK, v_BHSK, mask_BHTS)))


# --8<-- [end:multi-head]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    layer = MultiHeadAttention(model_size=64, heads=4)
    x_BTD, y_BSD = torch.randn(2, 6, 64), torch.randn(2, 9, 64)
    print("self ", tuple(layer(x_BTD).shape), "cross", tuple(layer(x_BTD, y_BSD).shape))
    # --8<-- [end:first-look]

    # --8<-- [start:cost]
    with torch.no_grad():
        for heads in (1, 4, 16):
            module = MultiHeadAttention(64, heads)
            with FlopCounterMode(display=False) as counter:
                module(torch.randn(1, 256, 64))
            parameters = nn.utils.parameters_to_vector(module.parameters()).numel()
            print(
                f"{heads:2} heads: {counter.get_total_flops()} FLOPs,"
                f" {parameters} parameters, {heads * 256 * 256:8} weights"
            )
    # --8<-- [end:cost]

    # --8<-- [start:one-head]
    single = MultiHeadAttention(model_size=64, heads=1)
    single.load_state_dict(layer.state_dict())
    gap = (single(x_BTD) - layer(x_BTD)).abs().max().item()
    print(f"same weights, 1 head instead of 4: outputs differ by {gap:.2f}")
    # --8<-- [end:one-head]

    # --8<-- [start:wrong-merges]
    head_BHTK = torch.randn(2, 4, 6, 16)
    later_BHTK = head_BHTK.clone()
    later_BHTK[:, :, 1:] += 1
    for name, merge in (
        ("right", merge_heads),
        ("no transpose", lambda x_BHTK: x_BHTK.reshape(2, 6, 64)),
        ("transpose(-1, -2)", lambda x_BHTK: x_BHTK.mT.reshape(2, 6, 64)),
    ):
        before_BTD, after_BTD = merge(head_BHTK), merge(later_BHTK)
        moved = (before_BTD != after_BTD)[:, 0].float().mean().item()
        print(f"{name}: {moved:.0%} of position 0 comes from later positions")
    # --8<-- [end:wrong-merges]

    # --8<-- [start:polarity]
    banned_TT = torch.ones(6, 6, dtype=torch.bool).triu(1)
    theirs = nn.MultiheadAttention(64, 4, batch_first=True)
    _, weight_BTT = theirs(x_BTD, x_BTD, x_BTD, attn_mask=banned_TT)
    print(f"nn.MultiheadAttention, future: {weight_BTT.triu(1).sum().item():.2f}")
    eye_1TT = torch.eye(6).expand(1, 6, 6)
    weight_1TT = F.scaled_dot_product_attention(eye_1TT, eye_1TT, eye_1TT, banned_TT)
    print(f"same mask in SDPA, future: {weight_1TT.triu(1).sum().item():.2f}")
    # --8<-- [end:polarity]

    # --8<-- [start:batch-first]
    theirs = nn.MultiheadAttention(64, 4)
    changed_BTD = x_BTD.clone()
    changed_BTD[1] += 1
    first_BTD, second_BTD = theirs(*[x_BTD] * 3)[0], theirs(*[changed_BTD] * 3)[0]
    gap = (first_BTD - second_BTD)[0].abs().max().item()
    print(f"sample 0 moved by {gap:.2f} when only sample 1 changed")
    # --8<-- [end:batch-first]

    # --8<-- [start:dropout]
    class Careless(nn.Module):
        """Passes dropout_p on without asking whether it is training."""

        def forward(self, x_BTD: Tensor) -> Tensor:
            """Return attention with dropout, always."""
            return F.scaled_dot_product_attention(x_BTD, x_BTD, x_BTD, dropout_p=0.5)

    careless = Careless().eval()
    print("two runs in eval agree:", careless(x_BTD).allclose(careless(x_BTD)))
    # --8<-- [end:dropout]
