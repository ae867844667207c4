"""The non-local block: self-attention over all positions of a map."""

# --8<-- [start:imports]
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

# --8<-- [end:imports]


# --8<-- [start:non-local]
class NonLocal(nn.Module):
    """Add to each position a weighted average of all positions (Wang et al. 2017, §3).

    The embedded Gaussian version: softmax over the keys, and no 1/sqrt(K). The last
    layer starts at zero, so a new block changes nothing. Raises ValueError when the
    map is not (batch, model_size, height, width).
    """

    def __init__(self, model_size: int, inner_size: int | None = None) -> None:
        """Make the four 1×1 convolutions; the inner ones halve the channels."""
        super().__init__()
        inner_size = max(1, model_size // 2) if inner_size is None else inner_size
        self.model_size = model_size
        self.theta = nn.Conv2d(model_size, inner_size, 1)
        self.phi = nn.Conv2d(model_size, inner_size, 1)
        self.g = nn.Conv2d(model_size, inner_size, 1)
        self.last = nn.Conv2d(inner_size, model_size, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def project(self, x_BDXY: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, one row a position, (B, X * Y, K)."""
        if x_BDXY.ndim != 4 or x_BDXY.shape[1] != self.model_size:
            raise ValueError(
                f"x has shape {tuple(x_BDXY.shape)}: "
                f"expected (batch, {self.model_size}, height, width)"
            )
        q_BPK, k_BPK, v_BPK = (
            layer(x_BDXY).flatten(2).transpose(1, 2)
            for layer in (self.theta, self.phi, self.g)
        )
        return q_BPK, k_BPK, v_BPK

    def weight(self, x_BDXY: Tensor) -> Tensor:
        """Return the weights, (B, queries, keys): each row sums to one (eq. 3)."""
        q_BPK, k_BPK, _ = self.project(x_BDXY)
        return torch.einsum("BTK,BSK->BTS", q_BPK, k_BPK).softmax(dim=-1)

    def forward(self, x_BDXY: Tensor) -> Tensor:
        """Return x plus what attention brings, (B, D, X, Y) (eq. 6)."""
        _, _, v_BPK = self.project(x_BDXY)
        y_BPK = self.weight(x_BDXY) @ v_BPK
        y_BKXY = y_BPK.transpose(1, 2).unflatten(2, x_BDXY.shape[2:])
        return x_BDXY + self.last(y_BKXY)


# --8<-- [end:non-local]


# --8<-- [start:reach]
def layers_to_cross(size: int) -> int:
    """Return how many 3×3 convolutions carry corner (0, 0) to the opposite corner."""
    reached_11XX = torch.zeros(1, 1, size, size)
    reached_11XX[..., 0, 0] = 1
    kernel_1133 = torch.ones(1, 1, 3, 3)
    layers = 0
    while reached_11XX[0, 0, -1, -1] == 0:
        reached_11XX = nn.functional.conv2d(reached_11XX, kernel_1133, padding=1)
        reached_11XX = (reached_11XX > 0).float()
        layers += 1
    return layers


# --8<-- [end:reach]


if __name__ == "__main__":
    # --8<-- [start:demo]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    x_BDXY = torch.randn(2, 64, 14, 14)
    block = NonLocal(64)
    print("weights", tuple(block.weight(x_BDXY).shape))
    print("a new block changes nothing:", torch.equal(block(x_BDXY), x_BDXY))
    # --8<-- [end:demo]

    # --8<-- [start:first-step]
    block(x_BDXY).square().mean().backward()
    for name in ("theta", "phi", "g", "last"):
        print(f"{name:5s} gradient {getattr(block, name).weight.grad.abs().max():.1e}")
    # --8<-- [end:first-step]

    # --8<-- [start:cost]
    size, inner = 512, 256
    print(
        " map    positions     scores  float32 MiB  projections  pairs (M operations)"
    )
    for side in (14, 28, 56):
        positions = side * side
        scores = positions**2
        projections, pairs = 4 * positions * size * inner, 2 * scores * inner
        print(
            f"{side:2d}x{side:2d} {positions:10d} {scores:10d} {scores * 4 / 2**20:12.2f}"
            f" {projections / 1e6:12.0f} {pairs / 1e6:6.0f}"
        )
    # --8<-- [end:cost]

    # --8<-- [start:reach-table]
    for side in (14, 28, 56):
        print(f"{side}x{side}: {layers_to_cross(side)} convolutions, 1 non-local block")
    # --8<-- [end:reach-table]

    # --8<-- [start:two-discs]
    row_X = torch.arange(14)
    kind_XY = torch.zeros(14, 14, dtype=torch.long)
    for kind, row, column in ((1, 3, 3), (1, 10, 10), (2, 3, 10), (3, 10, 3)):
        far_XY = (row_X[:, None] - row) ** 2 + (row_X - column) ** 2
        kind_XY[far_XY <= 4] = kind
    feature_4XY = 3.0 * nn.functional.one_hot(kind_XY, 4).movedim(2, 0)
    feature_4XY += 0.1 * torch.randn(4, 14, 14)
    compare = NonLocal(4, inner_size=4)
    with torch.no_grad():  # theta and phi set by hand: compare the features themselves
        for layer in (compare.theta, compare.phi):
            layer.weight.copy_(torch.eye(4)[:, :, None, None])
            layer.bias.zero_()
        weight_P = compare.weight(feature_4XY[None])[0, 3 * 14 + 3]
    weight_XY = weight_P.unflatten(0, (14, 14))
    for kind in range(4):
        print(f"weight on kind {kind}: {weight_XY[kind_XY == kind].sum():.4f}")
    near, far = weight_XY[:7, :7].sum(), weight_XY[7:, 7:].sum()
    print(f"upper left disc {near:.2f}, lower right disc {far:.2f}")
    # --8<-- [end:two-discs]

    # --8<-- [start:picture]
    fig, axes = plt.subplots(1, 2, figsize=(6, 2.8))
    for ax, title, drawn_XY in (
        (axes[0], "kind of each position", kind_XY),
        (axes[1], "weights of the query at +", weight_XY),
    ):
        fig.colorbar(ax.imshow(drawn_XY.cpu(), cmap="viridis"), ax=ax, shrink=0.8)
        ax.plot(3, 3, "r+", markersize=12)
        ax.set(title=title, xticks=[], yticks=[])
    plt.show()
    # --8<-- [end:picture]
