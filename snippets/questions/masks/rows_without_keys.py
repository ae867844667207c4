"""A query that may see nothing: NaN in the naive formula, zeros in PyTorch's function."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:blind]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    q_1TK, k_1SK, v_1SV = torch.randn(3, 1, 4, 8)
    real_S = torch.tensor([False, False, True, True])  # two tokens of left padding
    mask_TS = torch.ones(4, 4, dtype=torch.bool).tril() & real_S
    print("keys per query:", mask_TS.sum(-1).tolist())
    score_1TS = (q_1TK @ k_1SK.mT / 8**0.5).masked_fill(~mask_TS, -torch.inf)
    naive_1TV = score_1TS.softmax(-1) @ v_1SV
    finite_1TS = (q_1TK @ k_1SK.mT / 8**0.5).masked_fill(~mask_TS, -1e9)
    finite_1TV = finite_1TS.softmax(-1) @ v_1SV
    sdpa_1TV = F.scaled_dot_product_attention(q_1TK, k_1SK, v_1SV, mask_TS)
    assert naive_1TV[:, :2].isnan().all()
    assert (sdpa_1TV[:, :2] == 0).all()
    torch.testing.assert_close(finite_1TV[:, 0], v_1SV.mean(1))
    torch.testing.assert_close(naive_1TV[:, 2:], sdpa_1TV[:, 2:])
    print("query 0, naive:", naive_1TV[0, 0, :2].tolist())
    print("query 0, SDPA:", sdpa_1TV[0, 0, :2].tolist())
    print("query 0, filled with -1e9 is the mean of all values, padding included")
    # --8<-- [end:blind]

    # --8<-- [start:gradient]
    torch.manual_seed(0)
    see_TS = torch.ones(4, 4, dtype=torch.bool).tril(-1)  # query 0 sees nothing

    def naive(q_TK, k_SK, v_SV):
        """Attend as the formula says."""
        score_TS = (q_TK @ k_SK.T / 8**0.5).masked_fill(~see_TS, -torch.inf)
        return score_TS.softmax(-1) @ v_SV

    def safe(q_TK, k_SK, v_SV):
        """Attend with finite scores, then empty the rows without a key."""
        low = torch.finfo(q_TK.dtype).min
        score_TS = (q_TK @ k_SK.T / 8**0.5).masked_fill(~see_TS, low)
        return (score_TS.softmax(-1) * see_TS) @ v_SV

    for attend in (naive, safe):
        q_TK, v_SV = (torch.randn(4, 8, requires_grad=True) for _ in range(2))
        out_TV = attend(q_TK, v_SV.detach(), v_SV)
        out_TV[1:].sum().backward()  # the blind query takes no part in the loss
        hurt = v_SV.grad.isnan().float().mean().item()
        print(f"{attend.__name__}: {hurt:.0%} of the values' gradients are NaN")
        assert hurt == (attend is naive)
    # --8<-- [end:gradient]
