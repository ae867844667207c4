"""Soft or hard, self or cross, gate or attention: three separate questions."""

# --8<-- [start:imports]
import math

import torch

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:use]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    B, S = 100_000, 4
    weight_S = torch.tensor([0.4, 0.3, 0.2, 0.1])
    v_SV = torch.tensor([[10.0, 0.0], [0.0, 10.0], [20.0, 0.0], [0.0, 30.0]])
    soft_V = weight_S @ v_SV
    place_B = torch.multinomial(weight_S, B, replacement=True)
    choice_BS = torch.nn.functional.one_hot(place_B, S).float()
    assert (choice_BS.sum(-1) == 1).all()
    hard_BV = choice_BS @ v_SV
    error_V = hard_BV.std(0) / math.sqrt(B)
    assert ((hard_BV.mean(0) - soft_V).abs() <= 5 * error_V).all()
    print("soft:", soft_V.tolist())
    print("hard, first draws:", hard_BV[:4].tolist())
    print("hard, mean:", [f"{x:.2f}" for x in hard_BV.mean(0).tolist()])
    for level in (0.25, 0.15, 0.5):
        kept_S = (weight_S >= level).float()
        print(f"threshold {level}:", kept_S.tolist(), "->", (kept_S @ v_SV).tolist())
        assert not (kept_S @ v_SV).allclose(soft_V)
    # --8<-- [end:use]

    # --8<-- [start:source]
    x_TK, y_SK = torch.randn(3, 8), torch.randn(S, 8)
    for source, memory_SK in (("self", x_TK), ("cross", y_SK)):
        row_TS = torch.softmax(x_TK @ memory_SK.T / math.sqrt(8), dim=-1)
        place_T = torch.multinomial(row_TS, 1).squeeze(-1)
        for use, out_TK in (("soft", row_TS @ memory_SK), ("hard", memory_SK[place_T])):
            assert out_TK.shape == x_TK.shape
            print(
                f"{source:5} {use}: {row_TS.shape[1]} keys, output {tuple(out_TK.shape)}"
            )
    # --8<-- [end:source]

    # --8<-- [start:convolutional]
    image_1CXY = torch.randn(1, 16, 6, 6)
    squeezed_1C = image_1CXY.mean((2, 3))
    channel_1C = torch.sigmoid(torch.nn.Linear(16, 16)(squeezed_1C))
    pooled_12XY = torch.stack((image_1CXY.mean(1), image_1CXY.amax(1)), dim=1)
    place_11XY = torch.sigmoid(torch.nn.Conv2d(2, 1, 7, padding=3)(pooled_12XY))
    print(f"channel gates: {channel_1C.numel()}, sum {channel_1C.sum().item():.2f}")
    print(f"spatial gates: {place_11XY.numel()}, sum {place_11XY.sum().item():.2f}")
    assert abs(channel_1C.sum().item() - 1) > 1
    assert abs(place_11XY.sum().item() - 1) > 1
    for name, size in (("1×1, as non-local", 1), ("3×3, as CvT", 3)):
        groups = 1 if size == 1 else 16
        query, key = (
            torch.nn.Conv2d(16, 16, size, padding=size // 2, groups=groups)
            for _ in range(2)
        )
        q_1CP, k_1CP = query(image_1CXY).flatten(2), key(image_1CXY).flatten(2)
        weight_1PP = torch.softmax(q_1CP.mT @ k_1CP, dim=-1)
        row_1P = weight_1PP.sum(-1)
        assert (row_1P - 1).abs().max().item() <= 36 * torch.finfo().eps
        print(
            f"{name}: {row_1P.numel()} rows, sums {row_1P.min():.4f}–{row_1P.max():.4f}"
        )
    # --8<-- [end:convolutional]
