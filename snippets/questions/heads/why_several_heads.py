"""Several heads give several weighted averages; one head gives one."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:attend-in-heads]
def attend_in_heads(q_TD: Tensor, k_SD: Tensor, v_SD: Tensor, H: int) -> Tensor:
    """Attend with the same vectors, cut into H heads (T, D)."""
    q_HTK, k_HSK, v_HSV = (
        x_any.unflatten(-1, (H, -1)).transpose(0, 1) for x_any in (q_TD, k_SD, v_SD)
    )
    weight_HTS = (q_HTK @ k_HSK.mT / math.sqrt(q_HTK.shape[-1])).softmax(-1)
    return (weight_HTS @ v_HSV).transpose(0, 1).flatten(1)


# --8<-- [end:attend-in-heads]

if __name__ == "__main__":
    # --8<-- [start:two-places]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    # Key 0 is a word, key 1 its place; the query asks for both, half of it for each.
    k_44 = 20 * torch.eye(4)[[0, 2, 1, 3]]
    q_14 = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    v_44 = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1.0, 0], [0, 9, 0, 0], [0, 0, 0, 9.0]])
    for H in (1, 2):
        out_14 = attend_in_heads(q_14, k_44, v_44, H)
        print(f"{H} heads: output {[f'{x:.2f}' for x in out_14[0].tolist()]}")
        expected_14 = torch.tensor([[1.0, 0, 1.0, 0]]) / (1 if H == 2 else 2)
        torch.testing.assert_close(out_14, expected_14, atol=1e-2, rtol=0)
    # --8<-- [end:two-places]

    # --8<-- [start:other-function]
    torch.manual_seed(0)
    q_TD, k_TD, v_TD = torch.randn(3, 16, 64)
    one_TD = attend_in_heads(q_TD, k_TD, v_TD, 1)
    for H in (2, 8):
        many_TD = attend_in_heads(q_TD, k_TD, v_TD, H)
        change = ((many_TD - one_TD).norm() / one_TD.norm()).item()
        print(f"{H} heads: {change:.0%} away from 1 head, same vectors")
        assert change > 0.3
    # --8<-- [end:other-function]
