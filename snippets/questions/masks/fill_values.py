"""What to write into a masked score: minus infinity, a big number, or a tiny one."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:how-low]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    score_TS = torch.randn(4, 4)
    past_TS = torch.ones(4, 4, dtype=torch.bool).tril()
    free_TS = score_TS.softmax(-1)
    for fill in (-1e-9, -1.0, -10.0, -1e4, -1e9, -torch.inf):
        hidden_TS = (score_TS + torch.where(past_TS, 0.0, fill)).softmax(-1)
        leak = hidden_TS[~past_TS].max().item()
        change = (hidden_TS - free_TS).abs().max().item()
        print(f"{fill:8g}: largest hidden weight {leak:.2g}, change {change:.2g}")
        if fill == -1e-9:
            assert change < 1e-6
            assert leak > 0.1
        if fill <= -1e4:
            assert leak == 0
    # --8<-- [end:how-low]

    # --8<-- [start:thousand]
    torch.manual_seed(0)
    score_S = torch.tensor([0.0, 0.0, 0.0, 1200.0])  # the last key is padding
    keep_S = torch.tensor([True, True, True, False])
    for fill in (-1000.0, -torch.inf):
        added_S = (score_S + torch.where(keep_S, 0.0, fill)).softmax(-1)
        print(f"{fill:g} added: weight of the padding {added_S[-1]:.2f}")
    filled_S = score_S.masked_fill(~keep_S, -1000.0).softmax(-1)
    print(f"-1000 filled in: weight of the padding {filled_S[-1]:.2f}")
    assert (score_S + torch.where(keep_S, 0.0, -1000.0)).softmax(-1)[-1] == 1
    assert filled_S[-1] == 0
    broken_S = torch.tensor([0.0, 0.0, 0.0, torch.nan])  # what padding may hold
    added_S = (broken_S + torch.where(keep_S, 0.0, -torch.inf)).softmax(-1)
    filled_S = broken_S.masked_fill(~keep_S, -torch.inf).softmax(-1)
    print(f"a score of NaN: {added_S[0]:.2f} after adding -inf, {filled_S[0]:.2f}",
          "after filling it in")  # fmt: skip
    assert added_S.isnan().all()
    assert filled_S.isfinite().all()
    # --8<-- [end:thousand]

    # --8<-- [start:half]
    torch.manual_seed(0)
    score_TS = torch.randn(4, 4)
    past_TS = torch.ones(4, 4, dtype=torch.bool).tril()
    for dtype in (torch.float16, torch.bfloat16):
        low = torch.finfo(dtype).min
        added_TS = score_TS.to(dtype) + torch.where(past_TS, 0.0, -1e9).to(dtype)
        print(f"{dtype}: smallest {low:g}; -1e9 became {added_TS.min().item():g}")
        assert added_TS.min().isinf() == (dtype == torch.float16)
    try:
        torch.zeros(2, dtype=torch.float16).masked_fill(
            torch.tensor([True, False]), -1e9
        )
    except RuntimeError as error:
        print("masked_fill in float16:", error)
    else:
        raise AssertionError("-1e9 fitted into float16")
    low_S = torch.full((4,), torch.finfo(torch.float16).min, dtype=torch.float16)
    assert (low_S + low_S).isinf().all()
    print("two masks of finfo.min added in float16:", (low_S + low_S).tolist())
    # --8<-- [end:half]
