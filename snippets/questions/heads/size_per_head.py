"""Heads get smaller vectors: the price stays that of one, and matching needs few."""

# --8<-- [start:imports]
import torch
from torch import nn

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:down]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    D, H = 512, 8
    layer = nn.MultiheadAttention(D, H, bias=False)
    w_3HKD = layer.in_proj_weight.unflatten(0, (3, H, D // H))
    x_TD = torch.randn(D, D)  # as many tokens as components: full rank
    q_TK = x_TD @ w_3HKD[0, 0].T
    score_TT = (q_TK @ (x_TD @ w_3HKD[1, 0].T).T).detach()
    print(f"one head: {x_TD.shape[1]} components in, {q_TK.shape[1]} out")
    rank = torch.linalg.matrix_rank(score_TT, rtol=1e-4).item()
    print(f"rank of its {D} × {D} scores: {rank}")
    assert q_TK.shape[1] == rank == 64 < D
    # --8<-- [end:down]

    # --8<-- [start:price]
    D = 512
    parameters = {}
    for H, K in ((1, 512), (8, 64), (8, 512)):
        parameters[H, K] = 4 * D * (H * K)  # W_Q, W_K, W_V, W_O
        print(f"{H} × {K:3}: {parameters[H, K]:9,} parameters, "
              f"{2 * H * K:5,} numbers to cache for each token")  # fmt: skip
    assert parameters[8, 64] == parameters[1, 512]
    assert parameters[8, 512] == 8 * parameters[1, 512]
    assert 16 * 128 == 2 * 1024  # Qwen3-0.6B: 16 heads of 128, model size 1024
    # --8<-- [end:price]

    # --8<-- [start:enough]
    torch.manual_seed(0)
    D, S = 512, 256
    x_SD = nn.functional.normalize(torch.randn(S, D), dim=-1)
    found = {}
    for K in (1, 4, 16, 64, 512):
        right = []
        for _ in range(10):  # projections of a head that looks for the same token
            w_any = torch.randn(D, K)
            score_SS = (x_SD @ w_any) @ (x_SD @ w_any).T
            right.append((score_SS.argmax(-1) == torch.arange(S)).float().mean())
        found[K] = torch.stack(right).mean().item()
        print(f"K = {K:3}: {found[K]:4.0%} of {S} tokens find themselves")
    assert found[4] < 0.5
    assert found[64] > 0.99
    # --8<-- [end:enough]
