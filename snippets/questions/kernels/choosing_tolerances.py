"""How far may a kernel be from exact attention? Measured against a peer, not guessed."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:errors]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    q_TK, k_TK, v_TK = torch.randn(3, 256, 64).double()
    error = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        low_any = [x_TK.to(dtype) for x_TK in (q_TK, k_TK, v_TK)]
        exact_TK = F.scaled_dot_product_attention(*[x_TK.double() for x_TK in low_any])
        peer_TK = F.scaled_dot_product_attention(*low_any)
        error[dtype] = (peer_TK.double() - exact_TK).abs().max().item()
        print(f"{dtype}: largest error {error[dtype]:.1e}")
    assert error[torch.float32] < error[torch.float16] < error[torch.bfloat16]
    # --8<-- [end:errors]

    # --8<-- [start:hide]
    torch.manual_seed(0)
    q_TK, k_TK, v_TK = torch.randn(3, 256, 64).double()
    exact_TK = F.scaled_dot_product_attention(q_TK, k_TK, v_TK)
    wrong = {
        "one key of 256 ignored": F.scaled_dot_product_attention(
            q_TK, k_TK[1:], v_TK[1:]
        ),
        "scale of 1/√63": F.scaled_dot_product_attention(
            q_TK, k_TK, v_TK, scale=63**-0.5
        ),
    }
    for name, out_TK in wrong.items():
        gap = (out_TK - exact_TK).abs().max().item()
        print(f"{name}: off by {gap:.1e}; atol=1e-1 accepts it: {gap <= 1e-1}")
        assert gap > 2 * 1.9e-3  # twice the error of bfloat16
    assert torch.allclose(wrong["scale of 1/√63"], exact_TK, atol=1e-1, rtol=0)
    # --8<-- [end:hide]
