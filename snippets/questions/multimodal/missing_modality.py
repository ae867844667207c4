"""A missing image: zeros still take weight, -inf alone gives NaN, a mask does it."""

# --8<-- [start:imports]
import torch
from torch import nn

# --8<-- [end:imports]
from snippets.foundations.scaled_dot_product import attend, masked_softmax

if __name__ == "__main__":
    # --8<-- [start:zeros]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    T, P, K = 4, 9, 16  # text tokens, patches, size
    q_11TK, text_k_11TK, text_v_11TK = torch.randn(3, 1, 1, T, K, dtype=torch.float64)
    none_11PK = torch.zeros(1, 1, P, K, dtype=torch.float64)
    k_11SK = torch.cat((text_k_11TK, none_11PK), dim=2)
    v_11SK = torch.cat((text_v_11TK, none_11PK), dim=2)
    weight_11TS = torch.softmax(q_11TK @ k_11SK.mT / K**0.5, dim=-1)
    lost = weight_11TS[..., T:].sum(-1).mean().item()
    alone_11TK = attend(q_11TK, text_k_11TK, text_v_11TK)
    text_11TS = (torch.arange(T + P) < T).expand(1, 1, T, T + P)
    zeros_11TK = attend(q_11TK, k_11SK, v_11SK)
    masked_11TK = attend(q_11TK, k_11SK, v_11SK, text_11TS)
    print(f"weight on an image of zeros: {lost:.2f}")
    for name, out_11TK in (("zeros", zeros_11TK), ("masked", masked_11TK)):
        size = (out_11TK.norm() / alone_11TK.norm()).item()
        gap = (out_11TK - alone_11TK).abs().max().item()
        print(f"{name:6}: {size:.2f} as long as text alone, off by {gap:.0e}")
    assert lost > 0.5
    torch.testing.assert_close(masked_11TK, alone_11TK)
    # --8<-- [end:zeros]

    # --8<-- [start:nan]
    torch.manual_seed(0)
    image_B1SK, query_TK = torch.randn(8, 1, 9, 16), torch.randn(4, 16)
    here_B111 = (torch.arange(8) != 3)[:, None, None, None]  # the fourth has no image
    bias_B111 = torch.zeros(8, 1, 1, 1).masked_fill(~here_B111, -torch.inf)
    bad = {}
    print("NaN in: weights, gradient of the keys' matrix, of the values' matrix")
    for name in ("-inf", "-inf, then where", "masked_softmax"):
        to_key, to_value = (nn.Linear(16, 16, bias=False) for _ in range(2))
        score_B1TS = query_TK @ to_key(image_B1SK).mT / 4
        if name == "masked_softmax":
            weight_B1TS = masked_softmax(score_B1TS, here_B111.expand_as(score_B1TS))
        else:
            weight_B1TS = (score_B1TS + bias_B111).softmax(-1)
        if name == "-inf, then where":
            weight_B1TS = torch.where(here_B111, weight_B1TS, 0.0)
        (weight_B1TS @ to_value(image_B1SK)).square().mean().backward()
        bad[name] = [
            int(x_any.isnan().sum())
            for x_any in (weight_B1TS, to_key.weight.grad, to_value.weight.grad)
        ]
        print(f"{name:16}: {bad[name]}")
    assert bad["-inf"] == [4 * 9, 16 * 16, 16 * 16]
    assert bad["-inf, then where"] == [0, 16 * 16, 0]
    assert bad["masked_softmax"] == [0, 0, 0]
    # --8<-- [end:nan]
