"""Evidence on what attention is, what it solved, and what it is not."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:look-up]
def look_up(
    q_TK: Tensor, k_SK: Tensor, v_SV: Tensor, sharpness: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Average the values by how well keys match; returns weights (T, S), out (T, V)."""
    weight_TS = torch.softmax(sharpness * q_TK @ k_SK.T, dim=-1)
    return weight_TS, weight_TS @ v_SV


# --8<-- [end:look-up]


# --8<-- [start:recall]
def recall(S: int) -> tuple[float, float]:
    """Store S pairs of 64 numbers and recall all; returns two relative errors.

    First from a state of fixed size, 64 by 64, the best that reads linearly; then by
    attention, which keeps every pair.
    """
    k_SK, v_SV = F.normalize(torch.randn(S, 64), dim=-1), torch.randn(S, 64)
    state_KV = torch.linalg.pinv(k_SK) @ v_SV
    _, out_SV = look_up(k_SK, k_SK, v_SV, sharpness=64.0)
    fixed, kept = (k_SK @ state_KV - v_SV).norm(), (out_SV - v_SV).norm()
    return (fixed / v_SV.norm()).item(), (kept / v_SV.norm()).item()


# --8<-- [end:recall]


if __name__ == "__main__":
    # --8<-- [start:dictionary]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    k_SK, v_SV = F.normalize(torch.randn(8, 16), dim=-1), torch.randn(8, 4)
    q_TK = k_SK[[3, 5]]
    for sharpness in (0, 1, 4, 16, 64):
        weight_TS, out_TV = look_up(q_TK, k_SK, v_SV, sharpness)
        assert weight_TS.min() >= 0
        assert weight_TS.sum(dim=1).allclose(torch.ones(2))
        error = (out_TV - v_SV[[3, 5]]).abs().max().item()
        print(
            f"sharpness {sharpness:2}: weight on item 3 is {weight_TS[0, 3].item():.3f} for"
            f" query 3, {weight_TS[1, 3].item():.3f} for query 5; error {error:.3f}"
        )
    # --8<-- [end:dictionary]

    # --8<-- [start:bottleneck]
    for pairs in (4, 16, 64, 256, 1024):
        fixed, kept = recall(pairs)
        print(
            f"{pairs:4} pairs: error {fixed:.2f} from a fixed state, {kept:.2f} by attention"
        )
        assert abs(fixed - max(1 - 64 / pairs, 0) ** 0.5) < 0.02
        assert kept < 0.01
    # --8<-- [end:bottleneck]

    # --8<-- [start:linear]
    x_SK = torch.randn(8, 16)
    weight_TS, out_TV = look_up(q_TK, k_SK, v_SV)
    _, double_TV = look_up(q_TK, k_SK, 2 * v_SV)
    _, self_SK = look_up(x_SK, x_SK, x_SK)
    _, self_double_SK = look_up(2 * x_SK, 2 * x_SK, 2 * x_SK)
    print("values doubled, output doubled:", double_TV.allclose(2 * out_TV))
    print("input doubled, output doubled:", self_double_SK.allclose(2 * self_SK))
    assert double_TV.allclose(2 * out_TV)
    assert not self_double_SK.allclose(2 * self_SK)
    # --8<-- [end:linear]

    # --8<-- [start:not-unique]
    value_S5 = torch.cat([v_SV, torch.ones(8, 1)], dim=1)
    # A direction in which neither the output nor the sum of the weights moves.
    still_S = torch.linalg.svd(value_S5.T).Vh[-1]
    limit_S = torch.where(still_S < 0, -weight_TS[0] / still_S, torch.inf)
    other_S = (weight_TS[0] + limit_S.min() * still_S).clamp(min=0)
    print("weights:      ", [f"{w:.2f}" for w in weight_TS[0].tolist()])
    print("other weights:", [f"{w:.2f}" for w in other_S.tolist()])
    print("same output:", (other_S @ v_SV).allclose(out_TV[0], atol=1e-5))
    torch.testing.assert_close(other_S @ v_SV, out_TV[0])
    assert (weight_TS[0] - other_S).abs().sum() > 0.1
    # --8<-- [end:not-unique]
