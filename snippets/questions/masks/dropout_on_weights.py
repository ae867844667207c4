"""Dropout on attention weights: rows no longer sum to one, and nothing to do at the end."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:rows]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    N, T, S, rate = 2000, 4, 10, 0.2
    weight_TS = torch.randn(T, S).softmax(-1)
    dropped_NTS = F.dropout(weight_TS.expand(N, T, S), rate, training=True)
    row_NT = dropped_NTS.sum(-1)
    print("row sums of one draw:", [f"{x:.2f}" for x in row_NT[0].tolist()])
    print(f"row sums of {N} draws: {row_NT.min():.2f} to {row_NT.max():.2f}")
    print(f"mean of the row sums: {row_NT.mean():.2f}")
    kept_any = dropped_NTS[0][dropped_NTS[0] > 0]
    scaled_any = (weight_TS / (1 - rate))[dropped_NTS[0] > 0]
    torch.testing.assert_close(kept_any, scaled_any)  # kept weights are 1.25 times
    assert row_NT.max() > 1.2
    assert row_NT.min() < 0.6
    error = row_NT.std().item() / (N * T) ** 0.5
    assert abs(row_NT.mean().item() - 1) < 5 * error
    # --8<-- [end:rows]

    # --8<-- [start:evaluation]
    torch.manual_seed(0)
    weight_TS = torch.randn(4, 10).softmax(-1)
    assert torch.equal(F.dropout(weight_TS, 0.2, training=False), weight_TS)
    q_1TK, k_1TK, v_1TK = torch.randn(3, 1, 4, 8)
    first_1TK, second_1TK = (
        F.scaled_dot_product_attention(q_1TK, k_1TK, v_1TK, dropout_p=0.2)
        for _ in range(2)
    )
    assert not torch.equal(first_1TK, second_1TK)
    print(
        "dropout layers do nothing in evaluation; dropout_p of the function always acts"
    )
    # --8<-- [end:evaluation]
