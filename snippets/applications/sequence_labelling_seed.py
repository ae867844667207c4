"""The first program of the seed as it was given, and its faults one after another.

The class `Attention` is an exhibit: quoted as it stood, faults included. Do not use it.
"""
# ruff: noqa: F841

from contextlib import suppress

# fmt: off
# --8<-- [start:seed]
import torch
import torch.nn as nn

class Attention(nn.Module):
    def __init__(self, hidden_size):
        super(Attention, self).__init__()
        self.hidden_size = hidden_size
        self.attn = nn.Linear(hidden_size * 2, hidden_size)
        self.v = nn.Linear(hidden_size, 1)

    def forward(self, hidden, encoder_outputs):
        # hidden: [batch_size, hidden_size]
        # encoder_outputs: [src_len, batch_size, hidden_size]
        src_len = encoder_outputs.size(0)

        # [batch_size, src_len, hidden_size]
        attn_energies = self.score(hidden, encoder_outputs)
        attn_energies = attn_energies.unsqueeze(2)

        # [batch_size, src_len]
        attn_weights = F.softmax(attn_energies, dim=1)

        # [batch_size, hidden_size]
        attn_applied = torch.bmm(attn_weights.unsqueeze(1), encoder_outputs).squeeze(1)

        # [batch_size, hidden_size]
        attn_applied = F.relu(attn_applied)
        return attn_applied

    def score(self, hidden, encoder_outputs):
        # hidden: [batch_size, hidden_size]
        # encoder_outputs: [src_len, batch_size, hidden_size]
        energy = torch.tanh(self.attn(torch.cat((hidden.unsqueeze(1), encoder_outputs), 2)))
        energy = self.v(energy)
        return energy
# --8<-- [end:seed]
# fmt: on


# --8<-- [start:query-everywhere]
class QueryEverywhere(Attention):
    """The seed's class with its first fault repaired."""

    def score(self, hidden, encoder_outputs):
        query = hidden.expand_as(encoder_outputs)  # (B, D) becomes (S, B, D)
        energy = torch.tanh(self.attn(torch.cat((query, encoder_outputs), 2)))
        return self.v(energy)


# --8<-- [end:query-everywhere]


if __name__ == "__main__":
    # --8<-- [start:inputs]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    hidden_BD = torch.randn(2, 4)  # two sentences, one query each
    outputs_SBD = torch.randn(5, 2, 4)
    outputs_SBD[3:, 1] = 0  # the second sentence has 3 characters and 2 of padding
    attention = Attention(hidden_size=4)
    # --8<-- [end:inputs]

    with suppress(RuntimeError):
        # --8<-- [start:as-given]
        attention(hidden_BD, outputs_SBD)
        # --8<-- [end:as-given]

    with suppress(NameError):
        # --8<-- [start:missing-import]
        attention = QueryEverywhere(hidden_size=4)
        attention(hidden_BD, outputs_SBD)
        # --8<-- [end:missing-import]

    with suppress(RuntimeError):
        # --8<-- [start:extra-axis]
        import torch.nn.functional as F

        attention(hidden_BD, outputs_SBD)
        # --8<-- [end:extra-axis]

    # --8<-- [start:wrong-softmax]
    energy_SB = attention.score(hidden_BD, outputs_SBD).squeeze(2).detach()
    wrong_SB = F.softmax(energy_SB, dim=1)
    mixed_SD = torch.bmm(wrong_SB.unsqueeze(1), outputs_SBD).squeeze(1)
    print(f"weights summed over the batch    {wrong_SB.sum(1).tolist()}")
    print(f"weights summed over a sentence   {wrong_SB.sum(0).tolist()}")
    print(f"context {tuple(mixed_SD.shape)}, announced {tuple(hidden_BD.shape)}")
    # --8<-- [end:wrong-softmax]

    with suppress(RuntimeError):
        # --8<-- [start:wrong-layout]
        weight_BS = F.softmax(energy_SB, dim=0).T
        torch.bmm(weight_BS.unsqueeze(1), outputs_SBD)
        # --8<-- [end:wrong-layout]

    # --8<-- [start:it-runs]
    outputs_BSD = outputs_SBD.transpose(0, 1)
    context_BD = torch.bmm(weight_BS.unsqueeze(1), outputs_BSD).squeeze(1)
    lost = (F.relu(context_BD) != context_BD).sum()
    print(f"context {tuple(context_BD.shape)}: one vector, hence one label a sentence")
    print(f"numbers that ReLU sets to zero   {lost} of {context_BD.numel()}")
    print(f"weight on the 2 padded positions {weight_BS[1, 3:].sum():.3f}")
    # --8<-- [end:it-runs]
