"""`is_causal` aligns the triangle top left: wrong for a query behind a cache."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:one-step]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    q_11TK, k_11SK, v_11SV = torch.randn(3, 1, 1, 6, 8).unbind(0)
    whole_11TV = F.scaled_dot_product_attention(q_11TK, k_11SK, v_11SV, is_causal=True)
    last_111K = q_11TK[..., -1:, :]  # the step that decodes: 1 query, 6 keys
    step_111V = F.scaled_dot_product_attention(
        last_111K, k_11SK, v_11SV, is_causal=True
    )
    free_111V = F.scaled_dot_product_attention(last_111K, k_11SK, v_11SV)
    first_111V, last_111V = v_11SV[..., :1, :], whole_11TV[..., -1:, :]
    torch.testing.assert_close(step_111V, first_111V)
    torch.testing.assert_close(free_111V, last_111V)
    print("is_causal=True: the output is the first value, one key of 6 was seen")
    print("no mask: the output is that of the full pass")
    # --8<-- [end:one-step]

    # --8<-- [start:chunk]
    torch.manual_seed(0)
    q_11TK, k_11SK, v_11SV = torch.randn(3, 1, 1, 6, 8).unbind(0)
    whole_11TV = F.scaled_dot_product_attention(q_11TK, k_11SK, v_11SV, is_causal=True)
    chunk_113K = q_11TK[..., -3:, :]  # 3 new tokens behind a cache of 3
    corner, error = {"top left": 0, "bottom right": 6 - 3}, {}
    for name, diagonal in corner.items():
        mask_3S = torch.ones(3, 6, dtype=torch.bool).tril(diagonal)
        out_113V = F.scaled_dot_product_attention(chunk_113K, k_11SK, v_11SV, mask_3S)
        error[name] = (out_113V - whole_11TV[..., -3:, :]).abs().max().item()
        print(f"{name}: keys per query {mask_3S.sum(-1).tolist()},",
              f"error {error[name]:.1g}")  # fmt: skip
        assert (error[name] < 1e-6) == (name == "bottom right")
    lower_113V = F.scaled_dot_product_attention(
        chunk_113K, k_11SK, v_11SV, causal_lower_right(3, 6)
    )
    torch.testing.assert_close(lower_113V, whole_11TV[..., -3:, :])
    # --8<-- [end:chunk]
