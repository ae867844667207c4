"""A sample's output must not depend on its neighbors in the batch."""

# --8<-- [start:imports]
import warnings

import torch
import torch.nn.functional as F

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:which-dimension]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    warnings.simplefilter("ignore")  # softmax without dim warns, and guesses
    x_BTK = torch.randn(4, 6, 8)
    other_BTK = x_BTK.clone()
    other_BTK[1:] += 1  # the other samples of the batch

    moved = {}
    for name, weigh in (
        ("dim=-1", lambda score_BTT: score_BTT.softmax(-1)),
        ("no dim", F.softmax),
        ("dim=0", lambda score_BTT: score_BTT.softmax(0)),
    ):
        first_BTK, second_BTK = (
            weigh(y_BTK @ y_BTK.mT / 8**0.5) @ y_BTK for y_BTK in (x_BTK, other_BTK)
        )
        moved[name] = (first_BTK - second_BTK)[0].abs().max().item()
        print(f"{name:7} sample 0 moves by {moved[name]:.2f} when the others change")
    assert moved["dim=-1"] == 0
    assert moved["no dim"] == moved["dim=0"] > 0.1  # three axes: it takes the first
    score_BHTT = torch.randn(4, 3, 6, 6)
    assert torch.equal(F.softmax(score_BHTT), score_BHTT.softmax(1))  # four: heads
    # --8<-- [end:which-dimension]

    # --8<-- [start:padding]
    torch.manual_seed(0)
    short_3K = torch.randn(3, 8)
    alone_3K = F.scaled_dot_product_attention(short_3K, short_3K, short_3K)
    padded_TK = F.pad(short_3K, (0, 0, 0, 3))  # batched with a sequence of 6
    keep_T = torch.arange(6) < 3
    gap = {}
    for name, mask_TT in (("no mask", None), ("padding mask", keep_T.expand(6, 6))):
        out_TK = F.scaled_dot_product_attention(
            padded_TK, padded_TK, padded_TK, mask_TT
        )
        gap[name] = (out_TK[:3] - alone_3K).abs().max().item()
        print(f"{name}: {gap[name]:.1g} from the output of the sequence alone")
    assert gap["padding mask"] < 1e-6 < 0.1 < gap["no mask"]
    # --8<-- [end:padding]
