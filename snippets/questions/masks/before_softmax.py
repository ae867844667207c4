"""A mask after the softmax leaves rows that do not sum to one, and a leak."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:order]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    T = 6
    score_TT = torch.randn(T, T)
    past_TT = torch.ones(T, T, dtype=torch.bool).tril()
    before_TT = score_TT.masked_fill(~past_TT, -torch.inf).softmax(-1)
    after_TT = score_TT.softmax(-1) * past_TT
    again_TT = after_TT / after_TT.sum(-1, keepdim=True)
    for name, weight_TT in (
        ("before", before_TT),
        ("after", after_TT),
        ("after, rows divided by their sums", again_TT),
    ):
        print(f"{name}: row sums", [f"{x:.2f}" for x in weight_TT.sum(-1).tolist()])
    assert (after_TT[:-1].sum(-1) < 0.95).all()
    torch.testing.assert_close(again_TT, before_TT)
    # --8<-- [end:order]

    # --8<-- [start:leak]
    score_TT = torch.zeros(6, 6)
    past_TT = torch.ones(6, 6, dtype=torch.bool).tril()
    other_TT = score_TT.clone()
    other_TT[0, -1] += 3  # how well the last key, in the future, suits query 0
    moved = {}
    for name, weigh in (
        ("before", lambda x_TT: x_TT.masked_fill(~past_TT, -torch.inf).softmax(-1)),
        ("after", lambda x_TT: x_TT.softmax(-1) * past_TT),
    ):
        moved[name] = (weigh(other_TT) - weigh(score_TT))[0, 0].abs().item()
        print(f"mask {name}: the weight of key 0 moves by {moved[name]:.2f}")
    assert moved["before"] == 0
    assert moved["after"] > 0.05
    # --8<-- [end:leak]
