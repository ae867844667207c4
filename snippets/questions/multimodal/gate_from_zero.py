"""A tanh gate at 0 lets new layers into a frozen model without a shock."""

# --8<-- [start:imports]
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# --8<-- [end:imports]
from snippets.multimodal.cross_modal import CrossModalAttention


# --8<-- [start:stack]
def frozen_layers(layers: int) -> nn.ModuleList:
    """Return text layers of size 32, standing for a language model, frozen."""
    make = (
        nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        for _ in range(layers)
    )
    return nn.ModuleList(make).requires_grad_(False).eval()


def run(
    text_BTD: Tensor, image_BSI: Tensor, old: nn.ModuleList, new: nn.ModuleList | None
) -> Tensor:
    """Run the old layers, each after a new one that reads the image, if there are."""
    for number, layer in enumerate(old):
        if new is not None:
            text_BTD = new[number](text_BTD, image_BSI)
        text_BTD = layer(text_BTD)
    return text_BTD


# --8<-- [end:stack]

if __name__ == "__main__":
    # --8<-- [start:shock]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    text_BTD, image_BSI = torch.randn(4, 6, 32), torch.randn(4, 9, 48)
    to_word = nn.Linear(32, 50).requires_grad_(False)
    shift = {}
    print("layers  opening: shift of the next-word distribution, in nats")
    for layers in (2, 4, 8):
        old = frozen_layers(layers)
        new = nn.ModuleList(CrossModalAttention(32, 48, 64, 4) for _ in range(layers))
        before_BTE = to_word(run(text_BTD, image_BSI, old, None)).log_softmax(-1)
        for opening in (0.0, 0.5, 1.0):  # tanh(0), sigmoid(0), no gate at all
            for each in new:
                each.gate.data.fill_(opening).atanh_().clamp_(max=20)
            with torch.no_grad():
                after_BTE = to_word(run(text_BTD, image_BSI, old, new)).log_softmax(-1)
            gap_BTE = before_BTE.exp() * (before_BTE - after_BTE)
            shift[layers, opening] = gap_BTE.sum(-1).mean().item()
        print(
            f"{layers:6}", *(f" {x}: {shift[layers, x]:.4f}" for x in (0.0, 0.5, 1.0))
        )
        assert shift[layers, 0.0] == 0 < shift[layers, 0.5] < shift[layers, 1.0]
    # --8<-- [end:shock]

    # --8<-- [start:learn]
    torch.manual_seed(0)
    text_BTD, image_BSI = torch.randn(4, 6, 32), torch.randn(4, 9, 48)
    wanted_BTD = text_BTD + image_BSI.mean(1, keepdim=True)[..., :32]
    layer = CrossModalAttention(32, 48, 64, 4)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    for step in range(201):
        loss = F.mse_loss(layer(text_BTD, image_BSI), wanted_BTD)
        optimizer.zero_grad()
        loss.backward()
        gate, value = layer.gate.grad.abs(), layer.to_value.weight.grad.abs().max()
        if step in (0, 1, 200):
            opening = layer.gate.tanh().item()
            print(f"step {step:3}: tanh(gate) {opening:5.2f}, gradient at the gate")
            print(f"          {gate:.1e}, at the values {value:.1e}, loss {loss:.3f}")
        assert gate > 0
        assert (value == 0) == (step == 0)
        optimizer.step()
    # --8<-- [end:learn]
