"""Cross-attention: which of the two lengths stands where, and what a slip shows."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:cross]
def cross(
    x_BTD: Tensor, y_BSD: Tensor, w_3DD: Tensor, H: int, *, slip: bool = False
) -> tuple[Tensor, Tensor]:
    """Attend from x to y with H heads; returns weights and the merged output.

    With `slip`, keys and values are viewed with the length of x.
    """
    B, T, D = x_BTD.shape
    length = T if slip else y_BSD.shape[1]
    q_BHTK = (x_BTD @ w_3DD[0]).view(B, T, H, D // H).transpose(1, 2)
    k_BHSK, v_BHSK = (
        (y_BSD @ w_DD).view(B, length, H, D // H).transpose(1, 2) for w_DD in w_3DD[1:]
    )
    weight_BHTS = (q_BHTK @ k_BHSK.mT / math.sqrt(D // H)).softmax(-1)
    return weight_BHTS, (weight_BHTS @ v_BHSK).transpose(1, 2).reshape(B, T, D)


# --8<-- [end:cross]

if __name__ == "__main__":
    # --8<-- [start:shapes]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    x_BTD, y_BSD = torch.randn(2, 5, 8), torch.randn(2, 7, 8)  # T = 5, S = 7
    weight_BHTS, out_BTD = cross(x_BTD, y_BSD, torch.randn(3, 8, 8), H=2)
    print("weights", tuple(weight_BHTS.shape), "output", tuple(out_BTD.shape))
    assert weight_BHTS.shape == (2, 2, 5, 7)
    assert out_BTD.shape == x_BTD.shape
    torch.testing.assert_close(weight_BHTS.sum(-1), torch.ones(2, 2, 5))
    # --8<-- [end:shapes]

    # --8<-- [start:slip]
    torch.manual_seed(0)
    w_3DD = torch.randn(3, 8, 8)
    answer = {}
    for T, S in ((5, 5), (5, 7), (5, 10)):
        x_any, y_any = torch.randn(2, T, 8), torch.randn(2, S, 8)
        right_any = cross(x_any, y_any, w_3DD, H=2)[1]
        try:
            wrong_any = cross(x_any, y_any, w_3DD, H=2, slip=True)[1]
            answer[S] = "equal" if right_any.equal(wrong_any) else "different"
        except RuntimeError as error:
            answer[S] = f"RuntimeError: {error}"
        print(f"T = {T}, S = {S:2}: {answer[S]}")
    assert answer[5] == "equal"  # a test with equal lengths sees nothing
    assert all(answer[S].startswith("RuntimeError") for S in (7, 10))
    # --8<-- [end:slip]

    # --8<-- [start:axis]
    torch.manual_seed(0)
    score_15, v_51 = torch.randn(1, 5), torch.ones(5, 1)  # one query, five keys
    sums = {}
    for axis in (-1, 0):
        weight_15 = score_15.softmax(axis)
        sums[axis] = (weight_15 @ v_51).item()
        print(f"softmax over axis {axis:2}: the row sums to {sums[axis]:.2f}")
    assert abs(sums[-1] - 1) < 1e-6
    assert abs(sums[0] - 5) < 1e-6
    # --8<-- [end:axis]
