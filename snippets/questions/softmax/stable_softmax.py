"""Subtracting the maximum changes nothing but the overflow."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:two-forms]
def naive_softmax(x_S: Tensor) -> Tensor:
    """Return exp(x) over its sum (S)."""
    return torch.exp(x_S) / torch.exp(x_S).sum()


def shifted_softmax(x_S: Tensor, shift: Tensor) -> Tensor:
    """Return the same with every score lowered by the shift (S)."""
    return naive_softmax(x_S - shift)


# --8<-- [end:two-forms]

if __name__ == "__main__":
    # --8<-- [start:overflow]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    for dtype, tops in (
        (torch.float16, (10.0, 11.0, 12.0)),
        (torch.float32, (88.0, 88.5, 89.0)),
    ):
        for top, breaks in zip(tops, ("", "sum", "exp"), strict=True):
            x_3 = torch.tensor([top, top - 1, -math.inf], dtype=dtype)
            naive_3, safe_3 = naive_softmax(x_3), shifted_softmax(x_3, x_3.max())
            print(f"{dtype}, {top}: naive {naive_3[0]:.2f}, shifted {safe_3[0]:.2f}")
            assert abs(safe_3[0].item() - 0.731) < 0.001
            assert naive_3[0].isnan() == (breaks == "exp")  # ∞ / ∞
            assert (naive_3[0] == 0) == (breaks == "sum")  # finite / ∞: wrong, silent
    # --8<-- [end:overflow]

    # --8<-- [start:exact]
    torch.manual_seed(0)
    x_S = 5 * torch.randn(1000, dtype=torch.float64)
    exact_S = naive_softmax(x_S)
    off = (shifted_softmax(x_S, x_S.max()) / exact_S - 1).abs().max().item()
    print(f"float64: the two forms differ by {off:.0e}, relatively")
    assert off < 20 * torch.finfo(torch.float64).eps
    y_S = x_S.float()
    exact_S = naive_softmax(y_S.double())
    errors = [
        (p_S.double() / exact_S - 1).abs().max().item()
        for p_S in (naive_softmax(y_S), shifted_softmax(y_S, y_S.max()))
    ]
    print(f"float32 error: naive {errors[0]:.0e}, shifted {errors[1]:.0e}")
    assert max(errors) < 1e-5  # rounding, no approximation
    # --8<-- [end:exact]

    # --8<-- [start:which-shift]
    torch.manual_seed(0)
    x_S = torch.zeros(1000)
    x_S[0], x_S[1] = 200.0, 199.0
    print("minus the maximum:", shifted_softmax(x_S, x_S.max())[:2].tolist())
    print("minus the mean:   ", shifted_softmax(x_S, x_S.mean())[:2].tolist())
    assert shifted_softmax(x_S, x_S.max()).isfinite().all()
    assert shifted_softmax(x_S, x_S.mean()).isnan().any()
    # --8<-- [end:which-shift]

    # --8<-- [start:log]
    x_2 = torch.tensor([0.0, 200.0])
    late_2, safe_2 = torch.log(torch.softmax(x_2, 0)), torch.log_softmax(x_2, 0)
    print("log of softmax:", late_2.tolist(), " log_softmax:", safe_2.tolist())
    assert late_2[0].isinf()
    assert safe_2[0].item() == -200
    # --8<-- [end:log]
