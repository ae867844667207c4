"""Late fusion adds scores and cannot see how two modalities belong together."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# --8<-- [end:imports]


# --8<-- [start:designs]
def layer(kind: type[nn.Module] = nn.TransformerEncoderLayer) -> nn.Module:
    """Return a transformer layer of size 16."""
    return kind(16, 2, 32, dropout=0.0, batch_first=True)


class Fusion(nn.Module):
    """Score pairs of 4 image and 3 text tokens; `design` says where they meet."""

    def __init__(self, design: str) -> None:
        """Make the layers: early, middle or late."""
        super().__init__()
        self.design = design
        self.image, self.text = layer(), layer()
        self.joint = layer()
        self.cross = layer(nn.TransformerDecoderLayer)
        self.score = nn.ModuleList((nn.Linear(16, 1), nn.Linear(16, 1)))

    def forward(self, image_BPD: Tensor, text_BTD: Tensor) -> Tensor:
        """Return one score for each pair, (B)."""
        first, second = self.score
        if self.design == "early":
            both_BSD = self.joint(torch.cat((image_BPD, text_BTD), dim=1))
            return first(both_BSD.mean(1)).squeeze(1)
        image_BPD, text_BTD = self.image(image_BPD), self.text(text_BTD)
        if self.design == "middle":
            return first(self.cross(text_BTD, image_BPD).mean(1)).squeeze(1)
        return (first(image_BPD.mean(1)) + second(text_BTD.mean(1))).squeeze(1)


def train(design: str, task: str, steps: int = 100) -> float:
    """Return the mean loss of the last ten steps, in nats."""
    torch.manual_seed(0)
    model, losses = Fusion(design), []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    sign_2D = torch.randn(2, 16)  # how a 1 looks in an image, in a text
    for _ in range(steps):
        bit_2B = torch.randint(2, (2, 64))
        image_B1D, text_B1D = (2 * bit_2B[..., None, None] - 1) * sign_2D[:, None, None]
        image_BPD = image_B1D + 0.3 * torch.randn(64, 4, 16)
        text_BTD = text_B1D + 0.3 * torch.randn(64, 3, 16)
        wanted_B = (bit_2B[0] ^ bit_2B[1]) if task == "xor" else (bit_2B[0] | bit_2B[1])
        score_B = model(image_BPD, text_BTD)
        loss = F.binary_cross_entropy_with_logits(score_B, wanted_B.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-10:]) / 10


# --8<-- [end:designs]

if __name__ == "__main__":
    # --8<-- [start:race]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"knowing nothing: {math.log(2):.2f}")
    loss = {}
    for design, task in (
        ("late", "or"),
        ("late", "xor"),
        ("middle", "xor"),
        ("early", "xor"),
    ):
        loss[design, task] = train(design, task)
        print(f"{design:6} {task:3}: loss {loss[design, task]:.2f}")
    assert loss["late", "xor"] > 0.95 * math.log(2)
    assert max(loss[pair] for pair in loss if pair != ("late", "xor")) < 0.2
    # --8<-- [end:race]
