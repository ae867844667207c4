"""How large an error may be: derived from a peer's error, never typed in."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:error-budget]
def largest_error(result: Tensor, exact: Tensor) -> float:
    """Return the largest absolute difference of two tensors of one shape.

    `exact` is in float64. A NaN or a wrong shape gives infinity, so that it can
    never pass for a small error.
    """
    if result.shape != exact.shape:
        return float("inf")
    error = (result.double() - exact.double()).abs().max().item()
    return error if error == error else float("inf")


def error_budget(peer: Tensor, exact: Tensor, factor: float = 1.0) -> float:
    """Return the error that is allowed to a result in the dtype of `peer`.

    `peer` is PyTorch's own answer in that dtype, `exact` the answer in float64. We
    grant `factor` times the peer's error, plus four units in the last place of the
    largest value: without that floor a lucky peer would forbid any rounding at all.
    """
    ulp = torch.finfo(peer.dtype).eps * exact.abs().max().item()
    return factor * largest_error(peer, exact) + 4 * ulp


# --8<-- [end:error-budget]
