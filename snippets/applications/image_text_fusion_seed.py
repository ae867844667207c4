"""The second program of the seed as it was given, and its faults one after another.

The class `MultiModalAttention` is an exhibit: quoted as it stood, faults included.
"""

from contextlib import suppress

# fmt: off
# --8<-- [start:seed]
import torch
import torch.nn as nn


class MultiModalAttention(nn.Module):
    def __init__(self, img_size, txt_size, hidden_size):
        super(MultiModalAttention, self).__init__()
        self.img_size = img_size
        self.txt_size = txt_size
        self.hidden_size = hidden_size

        self.img_embedding = nn.Linear(img_size, hidden_size)
        self.txt_embedding = nn.Linear(txt_size, hidden_size)

        self.attn = nn.Linear(hidden_size * 2, hidden_size)
        self.v = nn.Linear(hidden_size, 1)

    def forward(self, img, txt):
        # img: [batch_size, img_size]
        # txt: [batch_size, txt_size]
        img_embedding = self.img_embedding(img)
        txt_embedding = self.txt_embedding(txt)

        # [batch_size, hidden_size]
        attn_applied = self.score(img_embedding, txt_embedding)

        # [batch_size, hidden_size]
        attn_applied = F.relu(attn_applied)
        return attn_applied

    def score(self, img_embedding, txt_embedding):
        # img_embedding: [batch_size, hidden_size]
        # txt_embedding: [batch_size, hidden_size]
        energy = torch.tanh(self.attn(torch.cat((img_embedding.unsqueeze(1), txt_embedding), 2)))
        energy = self.v(energy)
        return energy


# --8<-- [end:seed]
# fmt: on


# --8<-- [start:two-axes]
class TwoAxes(MultiModalAttention):
    def score(self, img_embedding, txt_embedding):
        both = torch.cat((img_embedding, txt_embedding), 2)
        return self.v(torch.tanh(self.attn(both)))


# --8<-- [end:two-axes]


# --8<-- [start:last-axis]
class LastAxis(MultiModalAttention):
    def score(self, img_embedding, txt_embedding):
        both = torch.cat((img_embedding, txt_embedding), -1)
        return self.v(torch.tanh(self.attn(both)))


# --8<-- [end:last-axis]


if __name__ == "__main__":
    with suppress(RuntimeError):
        # --8<-- [start:as-given]
        torch.manual_seed(0)
        torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
        sizes = {"img_size": 6, "txt_size": 5, "hidden_size": 4}
        img, txt = torch.randn(8, 6), torch.randn(8, 5)
        MultiModalAttention(**sizes)(img, txt)
        # --8<-- [end:as-given]

    with suppress(IndexError):
        # --8<-- [start:no-third-axis]
        TwoAxes(**sizes)(img, txt)
        # --8<-- [end:no-third-axis]

    with suppress(NameError):
        # --8<-- [start:missing-import]
        torch.manual_seed(0)
        model = LastAxis(**sizes)
        model(img, txt)
        # --8<-- [end:missing-import]

    # --8<-- [start:it-runs]
    import torch.nn.functional as F

    out = model(img, txt)
    energy = model.score(model.img_embedding(img), model.txt_embedding(txt))
    print("announced (8, 4), returned", tuple(out.shape))
    dead = [(LastAxis(**sizes)(img, txt) == 0).all().item() for _ in range(1000)]
    print("of 1000 new models, return 0 for all 8 pairs:", sum(dead))
    # --8<-- [end:it-runs]

    # --8<-- [start:a-set-of-one]
    weights = F.softmax(energy, dim=1)
    print("weights:", weights.flatten().tolist())
    attended = weights * model.img_embedding(img)
    print("attended is the image vector:", attended.equal(model.img_embedding(img)))
    attended.sum().backward()
    print("gradient of attn:", model.attn.weight.grad.abs().max().item())
    print("gradient of v:   ", model.v.weight.grad.abs().max().item())
    # --8<-- [end:a-set-of-one]
