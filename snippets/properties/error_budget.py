"""How large an error may be: derived from a peer's error, never typed in."""

import torch
from torch import Tensor


# --8<-- [start:error-budget]
def largest_error(result_any: Tensor, exact_any: Tensor) -> float:
    """Return the largest absolute difference of two tensors of one shape.

    `exact_any` is in float64. A NaN or a wrong shape gives infinity, so that it can
    never pass for a small error.
    """
    if result_any.shape != exact_any.shape:
        return float("inf")
    error = (result_any.double() - exact_any.double()).abs().max().item()
    return error if error == error else float("inf")


def error_budget(peer_any: Tensor, exact_any: Tensor, factor: float = 1.0) -> float:
    """Return the error that is allowed to a result in the dtype of `peer_any`.

    `peer_any` is PyTorch's own answer in that dtype, `exact_any` the answer in float64.
    We grant `factor` times the peer's error, plus four units in the last place of the
    largest value: without that floor a lucky peer would forbid any rounding at all.
    Raises ValueError when the two have another shape or hold a NaN or Inf: such a
    budget would allow everything.
    """
    ulp = torch.finfo(peer_any.dtype).eps * exact_any.abs().max().item()
    budget = factor * largest_error(peer_any, exact_any) + 4 * ulp
    if not budget < float("inf"):
        raise ValueError(f"the budget is {budget}: peer and exact must be finite")
    return budget


# --8<-- [end:error-budget]


if __name__ == "__main__":
    # --8<-- [start:two-orders]
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        x_TS = torch.randn(64, 1000, dtype=torch.float64)
        exact_T = x_TS.to(dtype).double().sum(-1)
        peer_T = x_TS.to(dtype).sum(-1)
        ours_T = sum(x_TS.to(dtype).split(100, dim=-1)).sum(-1)
        error = largest_error(ours_T, exact_T)
        allowed = error_budget(peer_T, exact_T, 2.0)
        print(f"{dtype}: error {error:.1e}, allowed {allowed:.1e}")
        wrong = largest_error(1.1 * ours_T, exact_T)
        print(f"    ten percent too large: error {wrong:.1e}")
        assert error <= allowed < wrong
    # --8<-- [end:two-orders]
