"""Softmax must give its weight away; a sink is where it goes when nothing fits."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]
# isort: split
from snippets.transformer.sinks import sink_softmax

if __name__ == "__main__":
    # --8<-- [start:cannot-abstain]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    v_SV = torch.randn(16, 8) + 1.0
    for level in (0.0, -10.0, -1000.0):
        score_S = torch.full((16,), level)  # "none of these", ever more strongly
        out_V = torch.softmax(score_S, dim=0) @ v_SV
        print(f"all scores {level:6.0f}: length of the output {out_V.norm():.2f}")
        assert (out_V - v_SV.mean(0)).abs().max() < 1e-6
    # --8<-- [end:cannot-abstain]

    # --8<-- [start:ways-out]
    torch.manual_seed(0)
    v_SV = torch.randn(16, 8) + 1.0
    v_SV[0] = 0.0  # a first token that carries nothing
    nothing_S = torch.full((16,), -10.0)
    first_S = nothing_S.clone()
    first_S[0] = 0.0
    zero_H = torch.zeros(1)
    weights = {
        "softmax": torch.softmax(nothing_S, dim=0),
        "softmax, first token takes it": torch.softmax(first_S, dim=0),
        "softmax-off-by-one": sink_softmax(nothing_S.view(1, 1, 1, -1), zero_H).view(
            -1
        ),
        "sigmoid of each score": torch.sigmoid(nothing_S),
    }
    length = {}
    for name, w_S in weights.items():
        length[name] = (w_S @ v_SV).norm().item()
        print(f"{name:30}: sum {w_S.sum():.4f}, output {length[name]:.4f}")
        assert (length[name] < 0.01) == (name != "softmax")
    # --8<-- [end:ways-out]

    # --8<-- [start:evict]
    torch.manual_seed(0)
    v_SV = torch.randn(64, 8)
    v_SV[0] = 0.0
    score_S = torch.randn(64)
    score_S[0] = 8.0  # the sink holds most of the weight
    sink_share = torch.softmax(score_S, dim=0)[0].item()
    before_V = torch.softmax(score_S, dim=0) @ v_SV
    after_V = torch.softmax(score_S[1:], dim=0) @ v_SV[1:]
    ratio = (after_V.norm() / before_V.norm()).item()
    print(f"weight on the sink {sink_share:.3f}; without it, outputs × {ratio:.1f}")
    assert abs(ratio - 1 / (1 - sink_share)) < 0.01 * ratio
    # --8<-- [end:evict]

    # --8<-- [start:first]
    T = 8
    visible_TT = torch.ones(T, T, dtype=torch.bool).tril()
    print("queries that can see each key:", visible_TT.sum(0).tolist())
    assert visible_TT.sum(0).tolist() == list(range(T, 0, -1))
    # --8<-- [end:first]
