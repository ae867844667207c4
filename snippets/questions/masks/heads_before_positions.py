"""(B, S, H, D) handed to a function that wants (B, H, S, D): tokens never meet."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:meet]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    B, T, H, K = 2, 7, 5, 8
    x_BTHK = torch.randn(B, T, H, K)
    other_BTHK = x_BTHK.clone()
    other_BTHK[:, 0] += 1  # another first token

    def right(x_BTHK):
        """Attend over positions; return (batch, positions, heads, size)."""
        x_BHTK = x_BTHK.transpose(1, 2)
        out_BHTK = F.scaled_dot_product_attention(x_BHTK, x_BHTK, x_BHTK)
        return out_BHTK.transpose(1, 2)

    def wrong(x_BTHK):
        """Attend over heads: the axes were not exchanged."""
        return F.scaled_dot_product_attention(x_BTHK, x_BTHK, x_BTHK)

    for attend in (right, wrong):
        out_BTHK, moved_BTHK = attend(x_BTHK), attend(other_BTHK)
        reach = (moved_BTHK - out_BTHK)[:, 1:].abs().max().item()
        print(
            f"{attend.__name__}: shape {tuple(out_BTHK.shape)}, tokens 1–6 move {reach:.2f}"
        )
        assert out_BTHK.shape == x_BTHK.shape
        assert (reach == 0) == (attend is wrong)
    # --8<-- [end:meet]
