"""Why √K: the variance of a dot product grows with K, its standard deviation with √K."""

# --8<-- [start:imports]
import math

import torch

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:variance]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    print("   K  var(q·k)  var(q·k/√K)  var(q·k/K)")
    for K in (4, 64, 1024):
        q_NK, k_NK = torch.randn(2, 10_000, K).unbind(0)
        dot_N = (q_NK * k_NK).sum(-1)
        variances = [(dot_N / c).var().item() for c in (1, math.sqrt(K), K)]
        print(f"{K:4} {variances[0]:9.1f} {variances[1]:12.2f} {variances[2]:11.4f}")
        assert abs(variances[0] / K - 1) < 0.1  # not √K, not K²
        assert abs(variances[1] - 1) < 0.1
        assert abs(variances[2] * K - 1) < 0.1
    # --8<-- [end:variance]

    # --8<-- [start:divide-by-size]
    torch.manual_seed(0)
    uniform = 1 / 128
    for K in (16, 64, 1024):
        q_TK, k_SK = torch.randn(512, K), torch.randn(128, K)
        top = {}
        for name, scale in (("1", 1), ("1/√K", K**-0.5), ("1/K", 1 / K)):
            weight_TS = torch.softmax(q_TK @ k_SK.T * scale, dim=-1)
            top[name] = weight_TS.amax(-1).mean().item()
        print(f"K = {K:4}:", ", ".join(f"× {n}: {p:.3f}" for n, p in top.items()))
        assert top["1"] > 5 * top["1/√K"] > 5 * top["1/K"] > 5 * uniform
    assert top["1/K"] < 1.2 * uniform  # dividing by K leaves an average of everything
    # --8<-- [end:divide-by-size]

    # --8<-- [start:bounded]
    torch.manual_seed(0)
    for size in (1.0, 10.0, 1000.0):
        score_S = (size * torch.randn(128, dtype=torch.float64)).requires_grad_()
        jacobian_SS = torch.autograd.functional.jacobian(
            lambda x_S: torch.softmax(x_S, dim=0), score_S
        )
        norm = torch.linalg.matrix_norm(jacobian_SS, ord=2).item()
        print(f"scores of size {size:6.0f}: largest singular value {norm:.1e}")
        assert norm <= 0.5
    assert norm < 1e-10  # saturated, the opposite of exploded
    # --8<-- [end:bounded]
