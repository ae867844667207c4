"""QK-norm bounds what goes in, soft-capping what comes out; neither bounds a weight."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.transformer.qk_norm import rms_norm
from snippets.transformer.soft_capping import soft_cap


# --8<-- [start:three-ways]
def scores(q_TK: Tensor, k_SK: Tensor, way: str) -> Tensor:
    """Return scores (T, S): plain, capped at 50, or of normalized q and k."""
    K = q_TK.shape[1]
    if way == "QK-norm":
        q_TK, k_SK = (rms_norm(x_any, torch.ones(K)) for x_any in (q_TK, k_SK))
    score_TS = q_TK @ k_SK.T / math.sqrt(K)
    return soft_cap(score_TS, 50.0) if way == "cap 50" else score_TS


# --8<-- [end:three-ways]

if __name__ == "__main__":
    # --8<-- [start:grow]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    K = 64
    q_TK, k_SK = torch.randn(256, K), torch.randn(128, K)
    largest, top = {}, {}
    print("                     largest score         mean largest weight")
    print("q and k times      1       4      16      1      4     16")
    for way in ("plain", "cap 50", "QK-norm"):
        for size in (1, 4, 16):
            score_TS = scores(size * q_TK, size * k_SK, way)
            largest[way, size] = score_TS.abs().max().item()
            top[way, size] = torch.softmax(score_TS, dim=-1).amax(-1).mean().item()
        row = "".join(f"{largest[way, size]:8.1f}" for size in (1, 4, 16))
        row += "".join(f"{top[way, size]:7.2f}" for size in (1, 4, 16))
        print(f"{way:12}{row}")
    assert largest["plain", 16] > 200 * largest["plain", 1]
    assert largest["cap 50", 16] <= 50 < largest["plain", 4]
    assert abs(largest["QK-norm", 16] - largest["QK-norm", 1]) < 1e-3
    assert top["cap 50", 4] > 0.7  # within 50 and nearly as sharp as without
    assert top["cap 50", 16] < 0.1  # far beyond the cap all large scores tie
    # --8<-- [end:grow]

    # --8<-- [start:bound]
    K = 64
    e_1K = torch.randn(1, K)
    score = scores(100 * e_1K, 100 * e_1K, "QK-norm").item()
    others = 8191 * math.exp(-2 * score)
    print(f"QK-norm, K = {K}: scores within ±{score:.2f}")
    print(f"one key of 8192 can still get {1 / (1 + others):.4f} of the weight")
    assert abs(score - math.sqrt(K)) < 1e-3
    assert 1 / (1 + others) > 0.99
    # --8<-- [end:bound]

    # --8<-- [start:gradient]
    torch.manual_seed(0)
    K = 64
    k_SK, weight_TS = torch.randn(128, K), torch.randn(1, 128)
    for way in ("plain", "QK-norm"):
        q_TK = torch.randn(1, K, requires_grad=True)
        out_TS = torch.softmax(scores(q_TK, k_SK, way), dim=-1)
        (grad_TK,) = torch.autograd.grad((out_TS * weight_TS).sum(), q_TK)
        along = torch.cosine_similarity(grad_TK, q_TK).item()
        print(f"{way:7}: cosine of gradient and query {along:+.4f}")
        assert (abs(along) < 1e-4) == (way == "QK-norm")
    # --8<-- [end:gradient]
