"""Deformable attention: a query says where to look and how much, without keys."""

# --8<-- [start:imports]
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# --8<-- [end:imports]


# --8<-- [start:deformable]
def sample(map_XYD: Tensor, place_N2: Tensor) -> Tensor:
    """Read a map at N places (row, column) between pixels, bilinearly: (N, D)."""
    size_2 = place_N2.new_tensor(map_XYD.shape[:2])
    grid_N2 = (2 * place_N2 + 1) / size_2 - 1
    grid_11N2 = grid_N2.flip(1)[None, None]  # grid_sample wants (column, row)
    map_1DXY = map_XYD.movedim(2, 0).unsqueeze(0)
    return F.grid_sample(map_1DXY, grid_11N2, align_corners=False)[0, :, 0].T


class Deformable(nn.Module):
    """One head that reads N places around each query's own (Zhu et al. 2020, eq. 2)."""

    def __init__(self, size: int, places: int) -> None:
        """Make the three projections."""
        super().__init__()
        self.offset = nn.Linear(size, 2 * places)
        self.weight = nn.Linear(size, places)
        self.value = nn.Linear(size, size)

    def look(self, q_TD: Tensor, origin_T2: Tensor) -> tuple[Tensor, Tensor]:
        """Return where each query looks (T, N, 2) and how much (T, N)."""
        offset_TN2 = self.offset(q_TD).unflatten(1, (-1, 2))
        weight_TN = self.weight(q_TD).softmax(dim=-1)
        return origin_T2.unsqueeze(1) + offset_TN2, weight_TN

    def forward(self, q_TD: Tensor, origin_T2: Tensor, map_XYD: Tensor) -> Tensor:
        """Return the weighted sum of what is read, (T, D)."""
        place_TN2, weight_TN = self.look(q_TD, origin_T2)
        read_MD = sample(self.value(map_XYD), place_TN2.flatten(0, 1))
        read_TND = read_MD.unflatten(0, weight_TN.shape)
        return torch.einsum("TN,TND->TD", weight_TN, read_TND)


# --8<-- [end:deformable]

if __name__ == "__main__":
    # --8<-- [start:no-keys]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    layer = Deformable(size=16, places=4)
    q_TD, origin_T2 = torch.randn(3, 16), 2 + 4 * torch.rand(3, 2)
    map_XYD, other_XYD = torch.randn(2, 9, 9, 16)
    place_TN2, weight_TN = layer.look(q_TD, origin_T2)  # no map is asked for
    out_TD = layer(q_TD, origin_T2, map_XYD)
    other_TD = layer(q_TD, origin_T2, other_XYD)
    print("weights per query:", [f"{x:.2f}" for x in weight_TN.sum(1).tolist()])
    print(f"another map: output moves by {(out_TD - other_TD).abs().max():.2f}")
    assert (out_TD - other_TD).abs().max() > 0.1
    hit_22 = torch.tensor([[3.0, 5.0], [0.0, 8.0]])
    assert sample(map_XYD, hit_22).allclose(map_XYD[[3, 0], [5, 8]], atol=1e-5)
    # --8<-- [end:no-keys]

    # --8<-- [start:local]
    row_P = torch.arange(17.0)
    far_PP = (row_P[:, None] - 8) ** 2 + (row_P - 8) ** 2
    maps = {"smooth": (-far_PP / 40).exp(), "one bright pixel": (far_PP == 0).float()}
    end = {}
    for name, bright_PP in maps.items():
        place_12 = torch.tensor([[4.0, 5.0]], requires_grad=True)
        for _ in range(200):
            loss = -sample(bright_PP.unsqueeze(-1), place_12).sum()
            (slope_12,) = torch.autograd.grad(loss, place_12)
            place_12 = (place_12 - 2 * slope_12).detach().requires_grad_()
        end[name] = (place_12.detach() - 8).norm().item()
        print(f"{name:16}: starts 5.0 from the target, ends {end[name]:.1f} from it")
    assert end["smooth"] < 1
    assert end["one bright pixel"] == 5
    # --8<-- [end:local]
