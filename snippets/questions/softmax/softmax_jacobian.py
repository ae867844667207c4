"""The Jacobian of softmax: diag(p) - ppᵀ, one rank short, and never written out."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:jacobian]
def softmax_jacobian(p_S: Tensor) -> Tensor:
    """Return ∂p/∂score (S, S) from the weights alone."""
    return torch.diag(p_S) - torch.outer(p_S, p_S)


def softmax_backward(p_S: Tensor, grad_S: Tensor) -> Tensor:
    """Return the gradient at the scores (S) from that at the weights, in O(S)."""
    return p_S * (grad_S - (p_S * grad_S).sum())


# --8<-- [end:jacobian]

if __name__ == "__main__":
    # --8<-- [start:rank]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    score_S = torch.randn(8, dtype=torch.float64)
    p_S = torch.softmax(score_S, dim=0)
    auto_SS = torch.autograd.functional.jacobian(lambda x_S: x_S.softmax(0), score_S)
    ours_SS = softmax_jacobian(p_S)
    assert (auto_SS - ours_SS).abs().max() < 1e-15
    assert (ours_SS.sum(0).abs() < 1e-15).all()  # adding a constant changes nothing
    masked_S = torch.softmax(score_S.masked_fill(score_S < 0, -torch.inf), dim=0)
    onehot_S = torch.eye(8, dtype=torch.float64)[0]
    for name, q_S in (("soft", p_S), ("masked", masked_S), ("one-hot", onehot_S)):
        rank = torch.linalg.matrix_rank(softmax_jacobian(q_S)).item()
        print(f"{name:7}: {(q_S > 0).sum().item()} positive weights, rank {rank}")
        assert rank == (q_S > 0).sum() - 1
    # --8<-- [end:rank]

    # --8<-- [start:backward]
    torch.manual_seed(0)
    score_S = torch.randn(1000, dtype=torch.float64, requires_grad=True)
    p_S = torch.softmax(score_S, dim=0)
    grad_S = torch.randn(1000, dtype=torch.float64)
    (auto_S,) = torch.autograd.grad(p_S, score_S, grad_S)
    ours_S = softmax_backward(p_S.detach(), grad_S)
    assert (ours_S - auto_S).abs().max() < 1e-15
    print(f"sum of the gradient at the scores: {abs(ours_S.sum().item()):.0e}")
    print(f"numbers: {p_S.numel()} for p, {p_S.numel() ** 2} for the matrix")
    # --8<-- [end:backward]

    # --8<-- [start:norm]
    torch.manual_seed(0)
    half_4 = torch.tensor([0.5, 0.5, 0.0, 0.0])
    even_4 = torch.full((4,), 0.25)
    sharp_4 = torch.tensor([0.997, 0.001, 0.001, 0.001])
    for name, p_4 in (("even", even_4), ("two tie", half_4), ("sharp", sharp_4)):
        top = torch.linalg.matrix_norm(softmax_jacobian(p_4), ord=2).item()
        print(f"{name:7}: largest eigenvalue {top:.4f}")
    largest = 0.0
    for size in (0.1, 1.0, 3.0, 10.0, 100.0):
        for score_S in size * torch.randn(100, 16):
            jacobian_SS = softmax_jacobian(torch.softmax(score_S, dim=0))
            largest = max(largest, torch.linalg.matrix_norm(jacobian_SS, ord=2).item())
    print(f"500 random rows: at most {largest:.4f}")
    assert largest <= 0.5 + 1e-6
    # --8<-- [end:norm]
