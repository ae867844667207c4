"""Weight tying shares embeddings and the output matrix; layers keep their own."""

# --8<-- [start:imports]
import math

import torch
import torch.nn.functional as F
from torch import nn

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:count]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    millions = {}

    def count(*modules: nn.Module) -> int:
        """Return the number of parameters; a shared one counts once."""
        return sum(p_any.numel() for p_any in nn.ModuleList(modules).parameters())

    for N, printed in ((2, 36), (4, 50), (6, 65), (8, 80)):  # Table 3 of the paper
        with torch.device("meta"):  # shapes only, no memory
            model = nn.Transformer(512, 8, N, N, 2048, batch_first=True)
        layers = [*model.encoder.layers, *model.decoder.layers]
        assert count(*layers) == sum(map(count, layers))  # each layer has its own
        body, word = count(model), 37_000 * 512  # one matrix of the vocabulary
        sizes = (body + word, body + 3 * word, count(layers[0], layers[-1]) + word)
        millions[N] = [size / 1e6 for size in sizes]
        tied, apart, shared = millions[N]
        print(f"{N} layers: tied {tied:.0f}, not tied {apart:.0f}, layers shared"
              f" {shared:.0f}; the paper has {printed} million")  # fmt: skip
        assert abs(tied - printed) < 3
        assert abs(apart - printed) > 30
    # --8<-- [end:count]

    # --8<-- [start:gradient]
    torch.manual_seed(0)
    table = nn.Embedding(20, 8)
    token_T, next_T = torch.randint(20, (2, 9))

    def loss_of(in_any, out_any):
        """Return the loss of a model with one hidden layer."""
        return F.cross_entropy(F.embedding(token_T, in_any).tanh() @ out_any.T, next_T)

    (tied_any,) = torch.autograd.grad(loss_of(table.weight, table.weight), table.weight)
    apart_any = [table.weight.detach().clone().requires_grad_() for _ in range(2)]
    in_any, out_any = torch.autograd.grad(loss_of(*apart_any), apart_any)
    gap = (tied_any - (in_any + out_any)).abs().max().item()
    rows = [(x_any != 0).any(1).sum().item() for x_any in (in_any, out_any)]
    print(f"tied: the sum of both uses, up to {gap:.0e}; rows of 20 with a gradient:"
          f" input {rows[0]}, output {rows[1]}")  # fmt: skip
    assert gap < 1e-6
    assert rows[0] < rows[1] == 20
    # --8<-- [end:gradient]

    # --8<-- [start:scale]
    torch.manual_seed(0)
    D, size = 512, 1000  # of the vocabulary
    hidden_TD = F.layer_norm(torch.randn(2000, D), (D,))
    label_T = torch.randint(size, (2000,))
    loss = {}
    for name, std in (("1", 1.0), ("1/√D", D**-0.5)):
        weight_any = std * torch.randn(size, D)
        loss[name] = F.cross_entropy(hidden_TD @ weight_any.T, label_T).item()
        print(f"tied matrix with standard deviation {name}: first loss"
              f" {loss[name]:.1f}, a fair guess {math.log(size):.1f}")  # fmt: skip
    assert loss["1"] > 50
    assert loss["1/√D"] < 8
    # --8<-- [end:scale]
