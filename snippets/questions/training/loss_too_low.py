"""A leak of the future is found by changing the future, not by looking at the loss."""

# --8<-- [start:imports]
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

# --8<-- [end:imports]


# --8<-- [start:reach]
def leaks(model: Callable, x_TD: Tensor, t: int) -> list[int]:
    """Return the positions up to t whose output moves when inputs after t change."""
    other_TD = x_TD.clone()
    other_TD[t + 1 :] += 1
    moved_T = (model(x_TD) != model(other_TD)).any(-1)
    return moved_T[: t + 1].nonzero().flatten().tolist()


# --8<-- [end:reach]

if __name__ == "__main__":
    # --8<-- [start:search]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    x_TD = torch.randn(8, 16)
    past_TT = torch.ones(8, 8, dtype=torch.bool).tril()
    norm = nn.BatchNorm1d(16)

    def mix(y_TD: Tensor, mask_TT: Tensor) -> Tensor:
        """Attend from each position to those of the mask."""
        score_TT = (y_TD @ y_TD.T / 4).masked_fill(~mask_TT, -torch.inf)
        return score_TT.softmax(-1) @ y_TD

    models = {
        "right": lambda y_TD: mix(y_TD, past_TT),
        "no mask": lambda y_TD: mix(y_TD, torch.ones_like(past_TT)),
        "triangle one too wide": lambda y_TD: mix(
            y_TD, torch.ones(8, 8, dtype=torch.bool).tril(1)
        ),
        "mean of the sequence": lambda y_TD: mix(y_TD - y_TD.mean(0), past_TT),
        "batch norm over positions": lambda y_TD: norm(mix(y_TD, past_TT)),
    }
    found = {}
    for name, model in models.items():
        found[name] = leaks(model, x_TD, 3)
        print(f"{name:26} outputs 0–3 that see beyond 3: {found[name]}")
    assert found["right"] == []
    assert found["triangle one too wide"] == [3]
    assert all(found[name] for name in found if name != "right")
    # --8<-- [end:search]

    # --8<-- [start:loss]
    torch.manual_seed(0)
    token_N = torch.randint(20, (5000,))  # random: nothing can be learned
    fresh_N = torch.randint(20, (5000,))  # unseen: log 20 is the best there is
    loss, unseen = {}, {}
    for name, shift in (("sees the past", 0), ("sees one ahead", 1)):
        table = nn.Embedding(20, 20)
        optimizer = torch.optim.Adam(table.parameters(), lr=0.1)
        seen_any = token_N.roll(-shift)[:-1]  # what the model bases its guess on
        for _ in range(200):
            step = nn.functional.cross_entropy(table(seen_any), token_N[1:])
            optimizer.zero_grad()
            step.backward()
            optimizer.step()
        loss[name] = step.item()
        asked_any = fresh_N.roll(-shift)[:-1]
        unseen[name] = nn.functional.cross_entropy(table(asked_any), fresh_N[1:]).item()
        print(f"{name}: training loss {loss[name]:.2f} nats, unseen {unseen[name]:.2f};",
              f"log 20 is {math.log(20):.2f}")  # fmt: skip
    assert unseen["sees one ahead"] < 0.1  # impossible without a leak
    assert loss["sees the past"] < math.log(20) < unseen["sees the past"]
    # --8<-- [end:loss]
