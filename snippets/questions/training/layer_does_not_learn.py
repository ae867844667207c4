"""Layers in a plain list are no parameters: nothing trains them, nothing moves them."""

# --8<-- [start:imports]
import torch
from torch import Tensor, nn

# --8<-- [end:imports]


# --8<-- [start:two]
class Heads(nn.Module):
    """Two heads, kept in a container of the given kind."""

    def __init__(self, container: type) -> None:
        """Make the layers."""
        super().__init__()
        self.heads = container([nn.Linear(8, 8) for _ in range(2)])
        self.out = nn.Linear(8, 8)

    def forward(self, x_TD: Tensor) -> Tensor:
        """Attend in each head and add up."""
        sum_TD = x_TD
        for head in self.heads:
            y_TD = head(x_TD)
            sum_TD = sum_TD + (y_TD @ y_TD.T).softmax(-1) @ y_TD
        return self.out(sum_TD)


# --8<-- [end:two]


# --8<-- [start:bare]
class BareBlock(nn.Module):
    """A “Transformer block” as some show it: attention without any projection."""

    def __init__(self, D: int) -> None:
        """Make the only two layers that have parameters."""
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Attend, then apply a gate that has no weights either."""
        y_BTD = self.norm1(x_BTD)
        x_BTD = x_BTD + nn.functional.scaled_dot_product_attention(y_BTD, y_BTD, y_BTD)
        y_BTD = self.norm2(x_BTD)
        return x_BTD + nn.functional.silu(y_BTD) * y_BTD


# --8<-- [end:bare]

if __name__ == "__main__":
    # --8<-- [start:count]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    counts = {}
    for container in (list, nn.ModuleList):
        model = Heads(container)
        counts[container] = len(list(model.parameters()))
        print(f"{container.__name__}: {counts[container]} parameters registered,",
              f"{len(model.state_dict())} entries saved")  # fmt: skip
    assert counts == {list: 2, nn.ModuleList: 6}
    # --8<-- [end:count]

    # --8<-- [start:step]
    torch.manual_seed(0)
    moved = {}
    for container in (list, nn.ModuleList):
        model = Heads(container)
        before_DD = model.heads[0].weight.detach().clone()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(torch.randn(4, 8)).square().sum().backward()
        gradient = model.heads[0].weight.grad.norm().item()
        optimizer.step()
        moved[container] = (model.heads[0].weight - before_DD).norm().item()
        print(f"{container.__name__}: gradient {gradient:.1f}, "
              f"moved by the optimizer {moved[container]:.2f}")  # fmt: skip
        assert gradient > 0
    assert moved[list] == 0
    assert moved[nn.ModuleList] > 0
    # --8<-- [end:step]

    # --8<-- [start:weigh]
    torch.manual_seed(0)
    whole = nn.TransformerEncoderLayer(32, 4, 128, batch_first=True)
    sizes = {
        name: nn.utils.parameters_to_vector(block.parameters()).numel()
        for name, block in {"bare": BareBlock(32), "whole": whole}.items()
    }
    print("parameters at D = 32:", sizes)
    assert BareBlock(32)(torch.randn(2, 5, 32)).shape == (2, 5, 32)
    assert sizes["bare"] == 2 * 2 * 32 < sizes["whole"] / 90
    # --8<-- [end:weigh]
