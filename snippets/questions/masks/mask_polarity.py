"""True means "may attend" in one function of PyTorch and "hidden" in another."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch import nn

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:both]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    T, D = 5, 8
    x_1TD = torch.randn(1, T, D)
    past_TT = torch.ones(T, T, dtype=torch.bool).tril()  # True: may attend
    layer = nn.MultiheadAttention(D, 1, bias=False, batch_first=True)
    q_1TD, k_1TD, v_1TD = F.linear(x_1TD, layer.in_proj_weight).chunk(3, dim=-1)

    def difference(mask_sdpa_TT, mask_mha_TT):
        """Return how far the two functions differ with these masks."""
        own_1TD = F.scaled_dot_product_attention(q_1TD, k_1TD, v_1TD, mask_sdpa_TT)
        mha_1TD, _ = layer(x_1TD, x_1TD, x_1TD, attn_mask=mask_mha_TT)
        return (layer.out_proj(own_1TD) - mha_1TD).abs().max().item()

    right, wrong = difference(past_TT, ~past_TT), difference(past_TT, past_TT)
    print(f"the second inverted: {right:.1g}; the same mask in both: {wrong:.2f}")
    assert right < 1e-6
    assert not wrong < 0.01  # also NaN: a row may have lost all its keys
    # --8<-- [end:both]

    # --8<-- [start:leak]
    torch.manual_seed(0)
    q_1TD, v_1TD = torch.randn(2, 1, 5, 8)
    past_TT = torch.ones(5, 5, dtype=torch.bool).tril()
    other_1TD = v_1TD.clone()
    other_1TD[:, -1] += 1  # the future
    moved = {}
    for name, mask_TT in (("True may attend", past_TT), ("inverted", ~past_TT)):
        first_1TD, second_1TD = (
            F.scaled_dot_product_attention(q_1TD, q_1TD, v_any, mask_TT)
            for v_any in (v_1TD, other_1TD)
        )
        moved[name] = (second_1TD - first_1TD)[:, :-1].abs().max().item()
        print(f"{name}: earlier outputs move by {moved[name]:.2f}")
    assert moved["True may attend"] == 0
    assert moved["inverted"] > 0.1
    # --8<-- [end:leak]
