"""Scores have rank K at most, their softmax need not; what a small K cannot express."""

# --8<-- [start:imports]
import math

import torch

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:rank]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    T = 64
    found = {}
    print(" K  rank of scores  rank of softmax")
    for K in (1, 4, 16):
        q_TK, k_TK = torch.randn(2, T, K, dtype=torch.float64).unbind(0)
        score_TT = q_TK @ k_TK.T / math.sqrt(K)
        weight_TT = torch.softmax(score_TT, dim=-1)
        ranks = [
            torch.linalg.matrix_rank(x_TT).item() for x_TT in (score_TT, weight_TT)
        ]
        print(f"{K:2} {ranks[0]:15} {ranks[1]:16}")
        assert ranks[0] == K < ranks[1]
        found[K] = ranks[1]
    assert found[4] == found[16] == T
    # --8<-- [end:rank]

    # --8<-- [start:causal]
    torch.manual_seed(0)
    q_TK, k_TK = torch.randn(2, 16, 1, dtype=torch.float64).unbind(0)
    hidden_TT = torch.ones(16, 16, dtype=torch.bool).triu(1)
    score_TT = (q_TK @ k_TK.T).masked_fill(hidden_TT, -math.inf)
    weight_TT = torch.softmax(score_TT, dim=-1)
    product = weight_TT.diagonal().log().sum().item()
    print(f"causal, K = 1: log determinant {product:.1f}")
    determinant = torch.linalg.slogdet(weight_TT).logabsdet.item()
    assert math.isclose(determinant, product, rel_tol=1e-6)  # finite: full rank
    # --8<-- [end:causal]

    # --8<-- [start:ordering]
    torch.manual_seed(0)
    S = 9
    line_S1 = torch.randn(S, 1).sort(dim=0).values
    angle_S = torch.arange(S) * 2 * math.pi / S
    circle_S2 = torch.stack((angle_S.cos(), angle_S.sin()), dim=-1)
    leaders = {}
    for name, k_any in (("K = 1", line_S1), ("K = 2", circle_S2)):
        q_any = torch.randn(10_000, k_any.shape[1])
        tops = set((q_any @ k_any.T).argmax(-1).tolist())
        print(f"{name}: {len(tops)} of {S} keys can have the largest weight")
        leaders[name] = tops
    assert leaders == {"K = 1": {0, S - 1}, "K = 2": set(range(S))}
    # --8<-- [end:ordering]

    # --8<-- [start:bottleneck]
    torch.manual_seed(0)
    T = 32
    want_TT = torch.softmax(2 * torch.randn(T, T, dtype=torch.float64), dim=-1)
    log_TT = want_TT.log()
    log_TT = log_TT - log_TT.mean(dim=-1, keepdim=True)  # softmax ignores the mean
    wrong = {}
    u_TR, s_R, v_TR = torch.linalg.svd(log_TT)
    for K in (1, 8, 16, T - 2, T - 1):
        best_TT = u_TR[:, :K] * s_R[:K] @ v_TR[:K]
        have_TT = torch.softmax(best_TT, dim=-1)
        off = (have_TT - want_TT).abs().sum(-1).mean().item() / 2
        print(f"K = {K:2}: {off:.1%} of the weight is in the wrong place")
        assert (off < 1e-12) == (K >= T - 1)
        wrong[K] = off
    # --8<-- [end:bottleneck]
