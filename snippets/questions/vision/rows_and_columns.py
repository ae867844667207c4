"""Attention along rows and columns: what it saves, what it reaches, what it ties."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]
from snippets.foundations.scaled_dot_product import attend


# --8<-- [start:masks]
def visible(height: int, width: int) -> dict[str, Tensor]:
    """Return who may attend to whom on a map, (P, P) each, with P = height · width."""
    row_P = torch.arange(height).repeat_interleave(width)
    column_P = torch.arange(width).repeat(height)
    same_row_PP = row_P[:, None] == row_P
    same_column_PP = column_P[:, None] == column_P
    return {
        "rows": same_row_PP,
        "columns": same_column_PP,
        "criss-cross": same_row_PP | same_column_PP,
    }


# --8<-- [end:masks]

if __name__ == "__main__":
    # --8<-- [start:cost]
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    print("  map    full        axial    criss-cross  full / axial")
    for height, width in ((64, 64), (64, 128), (128, 128)):
        P = height * width
        axial, cross = P * (height + width), P * (height + width - 1)
        print(
            f"{height:3}x{width:<3} {P**2:11,} {axial:10,} {cross:12,} {P / (height + width):9.1f}"
        )
    may = visible(6, 10)
    assert sum(may[x].sum().item() for x in ("rows", "columns")) == 60 * (6 + 10)
    assert may["criss-cross"].sum() == 60 * (6 + 10 - 1)
    # --8<-- [end:cost]

    # --8<-- [start:reach]
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    for name, see_PP in visible(6, 10).items():
        print(f"one layer, {name}: {see_PP.sum(1).unique().tolist()} of 60")
    step = {name: see_PP.float() for name, see_PP in visible(6, 10).items()}
    for first, second in (
        ("rows", "rows"),
        ("rows", "columns"),
        ("criss-cross", "criss-cross"),
    ):
        path_PP = step[second] @ step[first]
        print(
            f"{first}, then {second}: sees {(path_PP > 0).sum(1).unique().tolist()},"
            f" ways to the far corner {path_PP[0, -1]:.0f}"
        )
    # --8<-- [end:reach]

    # --8<-- [start:rows-are-the-batch]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    X, Y, K = 6, 10, 16
    x_XYK = torch.randn(X, Y, K, dtype=torch.float64)
    x_X1YK = x_XYK.unsqueeze(1)  # rows are the batch, one head
    by_batch_XYK = attend(x_X1YK, x_X1YK, x_X1YK).squeeze(1)
    x_11PK = x_XYK.view(1, 1, X * Y, K)
    mask_11PP = visible(X, Y)["rows"][None, None]
    by_mask_11PK = attend(x_11PK, x_11PK, x_11PK, mask_11PP)
    assert by_batch_XYK.flatten(0, 1).allclose(by_mask_11PK[0, 0])
    print(f"rows as batch: {X * Y**2} scores, as a mask: {(X * Y) ** 2}")
    # --8<-- [end:rows-are-the-batch]

    # --8<-- [start:tied]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    X, Y, K = 6, 10, 16
    q_PK, k_PK = torch.randn(2, X * Y, K, dtype=torch.float64)
    score_PP = q_PK @ k_PK.T / K**0.5
    along_PP, across_PP = (
        score_PP.masked_fill(~visible(X, Y)[name], -torch.inf).softmax(-1)
        for name in ("rows", "columns")
    )
    spread = {}
    for name, weight_PP in (
        ("full", score_PP.softmax(-1)),
        ("axial", across_PP @ along_PP),
    ):
        # The queries of column 0 choose between two places of row 3.
        weight_XXY = weight_PP.view(X, Y, X, Y)[:, 0]
        ratio_X = weight_XXY[:, 3, 2] / weight_XXY[:, 3, 7]
        spread[name] = (ratio_X.max() / ratio_X.min()).item()
        print(f"{name:5}: first place / second", [f"{x:.2f}" for x in ratio_X.tolist()])
    assert abs(spread["axial"] - 1) < 1e-9 < 2 < spread["full"]
    # --8<-- [end:tied]
