"""With more keys the same lead is worth less: a needed gap of log S, and what log S fixes."""

# --8<-- [start:imports]
import math

import torch

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:lead]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    print("     S   weight of a key 8 ahead   lead needed for 0.9")
    for S in (100, 1000, 10_000, 100_000):
        score_S = torch.zeros(S, dtype=torch.float64)
        score_S[0] = 8.0
        share = torch.softmax(score_S, dim=0)[0].item()
        needed = math.log(9 * (S - 1))
        score_S[0] = needed
        assert math.isclose(torch.softmax(score_S, dim=0)[0].item(), 0.9)
        print(f"{S:6} {share:25.3f} {needed:21.1f}")
    assert share < 0.05
    # --8<-- [end:lead]

    # --8<-- [start:by-log]
    torch.manual_seed(0)
    base, plain, scaled = 1000, {}, {}
    print("     S   largest weight   with scores × log S / log 1000")
    for S in (1000, 10_000, 100_000):
        score_S = torch.zeros(S, dtype=torch.float64)
        score_S[0] = 10.0
        plain[S] = torch.softmax(score_S, 0)[0].item()
        scaled[S] = torch.softmax(score_S * math.log(S) / math.log(base), 0)[0].item()
        print(f"{S:6} {plain[S]:16.3f} {scaled[S]:20.3f}")
    assert plain[100_000] < 0.2 < 0.95 < scaled[100_000]
    # --8<-- [end:by-log]

    # --8<-- [start:noise]
    torch.manual_seed(0)
    flat = {}
    for S in (1000, 10_000, 100_000):
        score_BS = torch.randn(20, S)
        spread = {}
        for name, factor in (("plain", 1.0), ("× log S", math.log(S))):
            p_BS = torch.softmax(factor * score_BS, dim=-1)
            entropy_B = torch.special.entr(p_BS).sum(-1)
            spread[name] = entropy_B.exp().mean().item()  # an effective number of keys
        flat[S] = spread
        print(
            f"{S:6}: effective keys "
            + ", ".join(f"{n} {x:.1f}" for n, x in spread.items())
        )
    assert flat[100_000]["plain"] > 50 * flat[1000]["plain"]
    assert flat[100_000]["× log S"] < 3 * flat[1000]["× log S"]
    # --8<-- [end:noise]
