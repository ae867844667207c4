"""Three mask patterns, pooling with a query, and weights that are not unique."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]
from snippets.foundations.scaled_dot_product import attend


# --8<-- [start:read]
def read(q_TD: Tensor, x_SD: Tensor, mask_TS: Tensor) -> Tensor:
    """Attend with one head and no batch; keys and values are both x. Returns (T, D)."""
    x_11SD = x_SD[None, None]
    return attend(q_TD[None, None], x_11SD, x_11SD, mask_TS[None, None])[0, 0]


# --8<-- [end:read]


# --8<-- [start:other-weights]
def other_weights(weight_S: Tensor, v_SV: Tensor) -> Tensor:
    """Return weights (S) with the same weighted sum of the values and a smaller maximum.

    Shrinks the largest weight as far as it can go. Raises ValueError unless there are
    more positions than a value has numbers, plus one for the sum of the weights.
    """
    S, V = v_SV.shape
    if S <= V + 1:
        raise ValueError(f"v_SV has {S} positions of size {V}: expected S > V + 1")
    kept_RS = torch.cat((v_SV, torch.ones_like(v_SV[:, :1])), dim=1).T
    weight_S, top = weight_S.clone(), weight_S.argmax()
    while weight_S[top] > 0 and (weight_S > 0).sum() > V + 1:
        used_P = weight_S.nonzero().squeeze(1)
        # Steps in the null space change neither the weighted sum nor the sum.
        null_NP = torch.linalg.svd(kept_RS[:, used_P]).Vh[V + 1 :]
        step_P = -null_NP.T @ null_NP[:, used_P == top].squeeze(1)
        if step_P[used_P == top] > -1e-9:
            break
        room_P = torch.where(step_P < 0, weight_S[used_P] / -step_P, torch.inf)
        weight_S[used_P] += room_P.min() * step_P
        weight_S[used_P[room_P.argmin()]] = 0
    return weight_S


# --8<-- [end:other-weights]

if __name__ == "__main__":
    # --8<-- [start:masks]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    S, T = 6, 5  # source and target tokens
    P = S + T  # both in one sequence
    all_PP = torch.ones(P, P, dtype=torch.bool)
    past_PP = all_PP.tril()
    source_SS, target_TT, cross_TS = all_PP[:S, :S], past_PP[:T, :T], all_PP[:T, :S]
    pairs = {
        "encoder-only": [all_PP.sum().item()],
        "decoder-only": [past_PP.sum().item()],
        "encoder-decoder": [
            source_SS.sum().item(),
            target_TT.sum().item(),
            cross_TS.sum().item(),
        ],
    }
    for name, counts in pairs.items():
        print(f"{name:16} {' + '.join(map(str, counts))} = {sum(counts)} allowed pairs")
    assert pairs == {
        "encoder-only": [P * P],
        "decoder-only": [P * (P + 1) // 2],
        "encoder-decoder": [S * S, T * (T + 1) // 2, T * S],
    }
    # --8<-- [end:masks]

    # --8<-- [start:leak]
    x_PD = torch.randn(P, 8)
    later_PD = x_PD.clone()
    later_PD[-1] += 1  # another last token
    for name, mask_PP in (("encoder-only", all_PP), ("decoder-only", past_PP)):
        change_PD = read(later_PD, later_PD, mask_PP) - read(x_PD, x_PD, mask_PP)
        print(f"{name}: earlier outputs change by {change_PD[:-1].abs().max():.3f}")
        assert change_PD[:-1].any(-1).tolist() == [name == "encoder-only"] * (P - 1)
    source_SD, target_TD = x_PD[:S], x_PD[S:]
    other_SD = source_SD.clone()
    other_SD[-1] += 1  # another last source token
    moved_TD = read(target_TD, other_SD, cross_TS) - read(
        target_TD, source_SD, cross_TS
    )
    print(
        "target positions that a source token reaches:", moved_TD.any(-1).sum().item()
    )
    assert moved_TD.any(-1).all()
    # --8<-- [end:leak]

    # --8<-- [start:pooling]
    query_1D = torch.randn(1, 8)  # a parameter of the model, learned
    padded_PD = torch.cat((source_SD, torch.zeros(T, 8)))
    real_1P = torch.arange(P)[None] < S
    alone_1D = read(query_1D, source_SD, real_1P[:, :S])
    padded_1D = read(query_1D, padded_PD, real_1P)
    shuffled_1D = read(query_1D, source_SD[torch.randperm(S)], real_1P[:, :S])
    drift_D = source_SD.mean(0) - padded_PD.mean(0)
    padding_1D, order_1D = padded_1D - alone_1D, shuffled_1D - alone_1D
    print(f"padding changes the plain mean by     {drift_D.abs().max():.3f}")
    print(f"padding changes the masked pooling by {padding_1D.abs().max():.0e}")
    print(f"word order changes the pooling by     {order_1D.abs().max():.0e}")
    torch.testing.assert_close(padded_1D, alone_1D)
    torch.testing.assert_close(shuffled_1D, alone_1D)
    # --8<-- [end:pooling]

    # --8<-- [start:not-unique]
    v_NV = torch.randn(32, 4, dtype=torch.float64)  # 32 positions, values of size 4
    weight_N = torch.softmax(torch.randn(32, dtype=torch.float64), dim=0)
    other_N = other_weights(weight_N, v_NV)
    top = weight_N.argmax()
    print(f"largest weight {weight_N[top]:.3f} becomes {other_N[top]:.3f}")
    print(f"weight that moved: {(weight_N - other_N).abs().sum() / 2:.3f} of 1")
    print(f"output changes by {(weight_N @ v_NV - other_N @ v_NV).abs().max():.0e}")
    torch.testing.assert_close(other_N @ v_NV, weight_N @ v_NV)
    assert other_N[top] < weight_N[top] / 2
    # --8<-- [end:not-unique]
