"""Image tokens for a language model: one a patch, or a fixed number of latents."""

# --8<-- [start:imports]
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# --8<-- [end:imports]


# --8<-- [start:connector]
class Connector(nn.Module):
    """Turn 16 patches into tokens, and say what color patch i has."""

    def __init__(self, latents: int, knows_question: bool = False) -> None:
        """Make a projector (0 latents), or latents that read the patches."""
        super().__init__()
        self.color, self.place = nn.Embedding(8, 32), nn.Embedding(16, 32)
        self.to_token, self.to_query, self.to_color = (
            nn.Linear(32, size) for size in (32, 32, 8)
        )
        self.latent = nn.Parameter(torch.randn(latents, 32)) if latents else None
        self.knows_question = knows_question

    def tokens(self, color_BP: Tensor, query_B1D: Tensor) -> Tensor:
        """Return what the language model gets to see: (B, S, D)."""
        patch_BPD = self.to_token(self.color(color_BP) + self.place.weight)
        if self.latent is None:
            return patch_BPD
        q_BSD = self.latent + (query_B1D if self.knows_question else 0 * query_B1D)
        return q_BSD + F.scaled_dot_product_attention(q_BSD, patch_BPD, patch_BPD)

    def forward(self, color_BP: Tensor, place_B: Tensor) -> Tensor:
        """Return the scores of the 8 colors, (B, 8)."""
        query_B1D = self.to_query(self.place(place_B)).unsqueeze(1)
        x_BSD = self.tokens(color_BP, query_B1D)
        read_B1D = F.scaled_dot_product_attention(query_B1D, x_BSD, x_BSD)
        return self.to_color(read_B1D.squeeze(1))


def accuracy(model: Connector, steps: int = 150) -> float:
    """Train on random images; return the share of right answers to 2000 questions."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(steps + 1):
        B = 64 if step < steps else 2000
        color_BP, place_B = torch.randint(8, (B, 16)), torch.randint(16, (B,))
        score_B8 = model(color_BP, place_B)
        wanted_B = color_BP[torch.arange(B), place_B]
        if step < steps:
            optimizer.zero_grad()
            F.cross_entropy(score_B8, wanted_B).backward()
            optimizer.step()
    return (score_B8.argmax(-1) == wanted_B).float().mean().item()


# --8<-- [end:connector]

if __name__ == "__main__":
    # --8<-- [start:budget]
    vision, text, layers = 1024, 4096, 32  # CLIP ViT-L/14 and a language model of 7B
    per_token = 2 * layers * text * 2  # bytes of keys and values in bfloat16
    print("pixels     one token a patch   32 latents")
    mebibytes = {}
    for side in (224, 336, 672):
        count = (side // 14) ** 2
        mebibytes[side] = [tokens * per_token / 2**20 for tokens in (count, 32)]
        many, few = mebibytes[side]
        print(f"{side} × {side} {count:5} {many:6.0f} MiB {few:8.0f} MiB")
    linear = vision * text + text
    mlp = linear + text * text + text
    print(f"parameters: linear {linear / 1e6:.1f}M, MLP {mlp / 1e6:.1f}M")
    # --8<-- [end:budget]

    # --8<-- [start:detail]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    right = {}
    for latents in (0, 1, 4, 16):
        name = f"{latents} latents" if latents else "projector, 16 tokens"
        right[name] = accuracy(Connector(latents))
    right["1 latent, told"] = accuracy(Connector(1, knows_question=True))
    for name, share in right.items():
        print(f"{name:21}: {share:.2f} right")
    assert min(right["projector, 16 tokens"], right["1 latent, told"]) > 0.95
    assert right["1 latents"] < right["4 latents"] < right["16 latents"]
    # --8<-- [end:detail]

    # --8<-- [start:local]
    torch.manual_seed(0)
    color_1P, query_11D = torch.randint(8, (1, 16)), torch.zeros(1, 1, 32)
    other_1P = color_1P.clone()
    other_1P[0, 5] = (color_1P[0, 5] + 1) % 8  # one patch has another color
    moved = {}
    for name, latents in (("projector", 0), ("latents", 4)):
        connector = Connector(latents)
        x_any = connector.tokens(color_1P, query_11D)
        moved[name] = (
            (x_any != connector.tokens(other_1P, query_11D)).any(-1).sum().item()
        )
        print(
            f"{name}: one patch changed moves {moved[name]} of {x_any.shape[1]} tokens"
        )
    assert moved == {"projector": 1, "latents": 4}
    # --8<-- [end:local]
