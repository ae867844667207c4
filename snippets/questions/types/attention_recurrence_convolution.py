"""How far a signal travels in self-attention, recurrence and convolution."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor, nn

# --8<-- [end:imports]


# --8<-- [start:layers]
def layers_needed(kind: str, T: int) -> int:
    """Count the layers until the last output depends on the first input."""
    offset_TT = torch.arange(T).unsqueeze(1) - torch.arange(T)
    reach_TT, layers = torch.eye(T), 0
    while reach_TT[-1, 0] == 0:
        dilation = 2**layers if kind == "dilated convolution" else 1
        if kind == "self-attention":
            layer_TT = torch.ones(T, T)
        else:  # three taps: one to the left, itself, one to the right
            taps_3 = torch.tensor([-dilation, 0, dilation])
            layer_TT = torch.isin(offset_TT, taps_3).float()
        reach_TT, layers = ((layer_TT @ reach_TT) > 0).float(), layers + 1
    return layers


# --8<-- [end:layers]


# --8<-- [start:look]
def look(x_TD: Tensor, y_SD: Tensor) -> Tensor:
    """Attend from the rows of x to the rows of y; returns (T, D)."""
    return torch.softmax(x_TD @ y_SD.T / math.sqrt(x_TD.shape[1]), dim=-1) @ y_SD


# --8<-- [end:look]


# --8<-- [start:influence]
def influence(T: int) -> tuple[float, float]:
    """Return how strongly the last output reacts to the first input of T.

    First of an RNN at its usual start, then of self-attention without parameters.
    """
    torch.manual_seed(0)
    rnn = nn.RNN(16, 16, batch_first=True)
    x_1TD = torch.randn(1, T, 16, requires_grad=True)
    reaction = []
    for out_1TD in (rnn(x_1TD)[0], look(x_1TD[0], x_1TD[0]).unsqueeze(0)):
        (grad_1TD,) = torch.autograd.grad(out_1TD[0, -1].sum(), x_1TD)
        reaction.append(grad_1TD[0, 0].norm().item())
    return tuple(reaction)


# --8<-- [end:influence]

if __name__ == "__main__":
    # --8<-- [start:path]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    needed = {}
    for length in (16, 64, 256):
        for kind in ("self-attention", "dilated convolution", "convolution"):
            needed[kind, length] = layers_needed(kind, length)
        print(f"T = {length:3}, layers:", end=" ")
        print({kind: n for (kind, T), n in needed.items() if length == T})
        assert needed["self-attention", length] == 1
        assert needed["dilated convolution", length] == math.log2(length)
        assert needed["convolution", length] == length - 1
    # --8<-- [end:path]

    # --8<-- [start:independent]
    torch.manual_seed(0)
    x_TD = torch.randn(12, 16)
    together_TD = look(x_TD, x_TD)
    alone_TD = torch.empty_like(x_TD)
    for t in torch.randperm(12).tolist():  # any order: no query waits for another
        alone_TD[t] = look(x_TD[t : t + 1], x_TD)[0]
    same = alone_TD.allclose(together_TD, atol=1e-6)
    assert same
    print("queries one by one, in random order, equal all at once:", same)
    # --8<-- [end:independent]

    # --8<-- [start:decay]
    torch.manual_seed(0)
    reaction = {length: influence(length) for length in (2, 8, 32)}
    for length, (recurrent, attended) in reaction.items():
        print(f"T = {length:2}: RNN {recurrent:.1e}, self-attention {attended:.1e}")
    assert reaction[2][0] / reaction[32][0] > 1e9
    assert reaction[2][1] / reaction[32][1] < 40
    # --8<-- [end:decay]
