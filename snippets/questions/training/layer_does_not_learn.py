"""Layers in a plain list are no parameters: nothing trains them, nothing moves them."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
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
class Bare(nn.Module):
    """A block that runs, with attention and a gate, and without a projection."""

    def __init__(self, size: int) -> None:
        """Make two norms, the only layers."""
        super().__init__()
        self.first, self.second = nn.RMSNorm(size), nn.RMSNorm(size)

    def forward(self, x_TD: Tensor) -> Tensor:
        """Attend and gate, each added to its input."""
        y_TD = self.first(x_TD)
        x_TD = x_TD + F.scaled_dot_product_attention(y_TD, y_TD, y_TD)
        z_TD = self.second(x_TD)
        return x_TD + F.silu(z_TD) * z_TD


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

    # --8<-- [start:projections]
    torch.manual_seed(0)
    whole = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True)
    sizes = {}
    for block in (Bare(64), whole):
        shape = tuple(block(torch.randn(6, 64)).shape)
        sizes[block] = sum(weight_any.numel() for weight_any in block.parameters())
        print(f"{type(block).__name__}: output {shape}, {sizes[block]:,} parameters")
    assert list(sizes.values()) == [2 * 64, 12 * 64**2 + 13 * 64]
    # --8<-- [end:projections]
