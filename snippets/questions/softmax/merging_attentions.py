"""Two partial attentions merge by their log-sum-exps, and by nothing less."""

# --8<-- [start:imports]
import math

import torch

# --8<-- [end:imports]
# isort: split
from snippets.decoding.split_kv import attend_part, merge

if __name__ == "__main__":
    # --8<-- [start:merge-two]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    q_BHTK = 3 * torch.randn(1, 1, 4, 64, dtype=torch.float64)
    k_BHSK, v_BHSV = torch.randn(2, 1, 1, 1000, 64, dtype=torch.float64).unbind(0)
    whole_BHTV, whole_BHT = attend_part(q_BHTK, k_BHSK, v_BHSV)
    one_BHTV, one_BHT = attend_part(q_BHTK, k_BHSK[:, :, :900], v_BHSV[:, :, :900])
    two_BHTV, two_BHT = attend_part(q_BHTK, k_BHSK[:, :, 900:], v_BHSV[:, :, 900:])
    share_BHT1 = torch.sigmoid(one_BHT - two_BHT).unsqueeze(-1)
    guesses = {
        "by log-sum-exp": share_BHT1 * one_BHTV + (1 - share_BHT1) * two_BHTV,
        "by number of keys": 0.9 * one_BHTV + 0.1 * two_BHTV,
        "half and half": 0.5 * one_BHTV + 0.5 * two_BHTV,
    }
    print("shares of part one:", [f"{x:.2f}" for x in share_BHT1.flatten().tolist()])
    for name, guess_BHTV in guesses.items():
        off = (guess_BHTV - whole_BHTV).abs().max().item()
        print(f"{name:17}: error {off:.0e}")
        assert (off < 1e-12) == (name == "by log-sum-exp")
    sum_BHT = torch.logaddexp(one_BHT, two_BHT)
    assert (sum_BHT - whole_BHT).abs().max() < 1e-12
    # --8<-- [end:merge-two]

    # --8<-- [start:any-tree]
    torch.manual_seed(0)
    q_BHTK = torch.randn(1, 1, 4, 64, dtype=torch.float64)
    k_BHSK, v_BHSV = torch.randn(2, 1, 1, 96, 64, dtype=torch.float64).unbind(0)
    parts = [
        attend_part(q_BHTK, k_BHCK, v_BHCV)
        for k_BHCK, v_BHCV in zip(k_BHSK.split(32, 2), v_BHSV.split(32, 2), strict=True)
    ]
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        done_any = parts[order[0]]
        for n in order[1:]:
            pair = (done_any, parts[n])
            done_any = merge(
                *(torch.stack(both_any) for both_any in zip(*pair, strict=True))
            )
        off = (done_any[0] - attend_part(q_BHTK, k_BHSK, v_BHSV)[0]).abs().max().item()
        print(f"merged in the order {order}: error {off:.0e}")
        assert off < 1e-12
    # --8<-- [end:any-tree]

    # --8<-- [start:bounds]
    torch.manual_seed(0)
    for size in (0.0, 1.0, 10.0, 1000.0):
        x_S = size * torch.randn(100, dtype=torch.float64)
        excess = (torch.logsumexp(x_S, 0) - x_S.max()).item()
        print(f"scores × {size:4.0f}: log-sum-exp is the maximum + {excess:.2f}")
        assert -1e-9 <= excess <= math.log(100) + 1e-9
    # --8<-- [end:bounds]
