"""What attention does in four vision tasks, in numbers that can be checked."""

# --8<-- [start:imports]
from itertools import permutations

import torch
from torch import Tensor, nn

# --8<-- [end:imports]


# --8<-- [start:patches]
def patch_embedding(image_B3XY: Tensor, layer: nn.Conv2d) -> Tensor:
    """Cut patches by reshaping, then multiply: what the convolution `layer` does.

    Returns (batch, patches, model size).
    """
    side = layer.kernel_size[0]
    cut_B3IAJA = image_B3XY.unflatten(2, (-1, side)).unflatten(4, (-1, side))
    flat_BIJF = cut_B3IAJA.permute(0, 2, 4, 1, 3, 5).flatten(3)
    return flat_BIJF.flatten(1, 2) @ layer.weight.flatten(1).T + layer.bias


# --8<-- [end:patches]


# --8<-- [start:match]
def match(cost_TS: Tensor) -> tuple[float, list[int]]:
    """Return the cheapest one-to-one assignment of S objects to T predictions.

    By trying all; DETR uses the Hungarian algorithm. The list holds, for each object,
    its prediction. Raises ValueError when there are fewer predictions than objects.
    """
    T, S = cost_TS.shape
    if T < S:
        raise ValueError(f"{T} predictions for {S} objects: expected at least {S}")
    choices = permutations(range(T), S)
    totals = [(sum(cost_TS[t, s].item() for s, t in enumerate(c)), c) for c in choices]
    total, best = min(totals)
    return total, list(best)


# --8<-- [end:match]


# --8<-- [start:space-time]
def visible(frames: int, places: int, scheme: str) -> Tensor:
    """Return which patches a patch compares itself with, (frames * places) squared.

    The schemes are those of Bertasius et al. 2021: joint, space or time.
    """
    time_T = torch.arange(frames).repeat_interleave(places)
    place_T = torch.arange(places).repeat(frames)
    same_time_TT = time_T[:, None] == time_T
    same_place_TT = place_T[:, None] == place_T
    masks = {
        "joint": torch.ones_like(same_time_TT),
        "space": same_time_TT,
        "time": same_place_TT,
    }
    if scheme not in masks:
        raise ValueError(f"scheme is {scheme!r}: expected one of {list(masks)}")
    return masks[scheme]


# --8<-- [end:space-time]


if __name__ == "__main__":
    # --8<-- [start:patches-run]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    layer = nn.Conv2d(3, 192, kernel_size=16, stride=16).double()
    image_B3XY = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    by_conv_BPD = layer(image_B3XY).flatten(2).transpose(1, 2)
    by_matrix_BPD = patch_embedding(image_B3XY, layer)
    assert by_matrix_BPD.allclose(by_conv_BPD)
    print(f"224/16: {by_conv_BPD.shape[1]} patches of {16 * 16 * 3} numbers")
    # --8<-- [end:patches-run]

    # --8<-- [start:gates-run]
    logit_BD = torch.randn(1, 64)  # 64 channels
    score_BTS = torch.randn(1, 196, 196)  # 196 positions attend to 196
    gate_BD, weight_BTS = logit_BD.sigmoid(), score_BTS.softmax(dim=-1)
    print(f"64 channel gates sum to {gate_BD.sum():.1f}")
    print(f"196 weights of one position sum to {weight_BTS[0, 0].sum():.1f}")
    assert abs(gate_BD.sum() - 1) > 10
    assert weight_BTS.sum(-1).allclose(torch.ones(1, 196))
    # --8<-- [end:gates-run]

    # --8<-- [start:match-run]
    cost_TS = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.3, 0.2], [0.7, 0.7]])
    total, best = match(cost_TS)
    print(f"4 predictions, 2 objects: object -> prediction {best}, cost {total:.1f}")
    for order in permutations(range(4)):
        assert abs(match(cost_TS[list(order)])[0] - total) < 1e-6
    print("the same cost for all 24 orders of the predictions")
    # --8<-- [end:match-run]

    # --8<-- [start:segmentation-run]
    print("  map   all pairs  row + column   ratio")
    for side in (32, 64, 128):
        positions = side * side
        pairs, cross = positions**2, positions * (2 * side - 1)
        print(f"{side:3d}^2 {pairs:11d} {cross:13d} {pairs / cross:7.1f}")
    row_T = torch.arange(64) // 8
    column_T = torch.arange(64) % 8
    cross_TT = (row_T[:, None] == row_T) | (column_T[:, None] == column_T)
    assert int(cross_TT.sum()) == 64 * (2 * 8 - 1)
    twice_TT = cross_TT.float() @ cross_TT.float() > 0
    print(
        "one round joins all pairs:",
        bool(cross_TT.all()),
        "- two:",
        bool(twice_TT.all()),
    )
    # --8<-- [end:segmentation-run]

    # --8<-- [start:space-time-run]
    for scheme in ("joint", "space", "time"):
        count_P = visible(4, 9, scheme).sum(1)
        print(f"4 frames of 9 patches, {scheme}: {count_P.unique().tolist()} a patch")
    print("frames  joint a patch  divided a patch  joint in all  divided in all")
    for frames in (8, 16, 96):
        joint, divided = 196 * frames + 1, 196 + frames + 2  # with the class token
        patches = 196 * frames
        print(
            f"{frames:6d} {joint:14d} {divided:16d}"
            f" {joint * patches:13d} {divided * patches:15d}"
        )
    # --8<-- [end:space-time-run]
