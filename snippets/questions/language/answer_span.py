"""A span head: the best start and the best end need not make a span."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:best-span]
def best_span(
    start_BS: Tensor, end_BS: Tensor, passage_BS: Tensor, longest: int
) -> tuple[Tensor, Tensor]:
    """Return first and last position of the best span of each sample, (B), (B).

    Scores add up; a span lies in the passage and has 1 to `longest` tokens.
    """
    S = start_BS.shape[1]
    length_SS = torch.arange(S) - torch.arange(S)[:, None] + 1
    fits_SS = (length_SS >= 1) & (length_SS <= longest)
    fits_BSS = fits_SS & passage_BS[:, :, None] & passage_BS[:, None, :]
    pair_BSS = (start_BS[:, :, None] + end_BS[:, None, :]).masked_fill(
        ~fits_BSS, -torch.inf
    )
    place_B = pair_BSS.flatten(1).argmax(1)
    return place_B // S, place_B % S


# --8<-- [end:best-span]

if __name__ == "__main__":
    # --8<-- [start:apart]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    start_BS, end_BS = torch.randn(2, 10_000, 40)  # 8 of question, 32 of passage
    passage_BS = (torch.arange(40) >= 8).expand(10_000, 40)
    first_B, last_B = start_BS.argmax(1), end_BS.argmax(1)
    backwards = (last_B < first_B).float().mean().item()
    outside = ((first_B < 8) | (last_B < 8)).float().mean().item()
    print(f"apart, scores without knowledge: {backwards:.0%} end before they start,")
    print(f"  {outside:.0%} touch the question")
    first_B, last_B = best_span(start_BS, end_BS, passage_BS, longest=10)
    assert ((first_B >= 8) & (first_B <= last_B) & (last_B < first_B + 10)).all()
    print("together: all are spans of 1 to 10 tokens of the passage")
    # --8<-- [end:apart]

    # --8<-- [start:two-answers]
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    words = "was it in 1994 or in June 2003 ?".split()
    start_1S = torch.tensor([[0.0, 0, 0, 4.0, 0, 0, 4.1, 0, 0]])
    end_1S = torch.tensor([[0.0, 0, 0, 4.2, 0, 0, 0, 4.0, 0]])
    inside_1S = torch.ones(1, 9, dtype=torch.bool)
    first, last = start_1S.argmax().item(), end_1S.argmax().item()
    after = first + end_1S[0, first:].argmax().item()
    together = [x_1.item() for x_1 in best_span(start_1S, end_1S, inside_1S, 4)]
    spans = {
        "apart": (first, last),
        "start first": (first, after),
        "together": tuple(together),
    }
    for name, (one, other) in spans.items():
        total = (start_1S[0, one] + end_1S[0, other]).item()
        print(f"{name:11}: {words[one]} … {words[other]}, score {total:.1f}")
    assert spans == {"apart": (6, 3), "start first": (6, 7), "together": (3, 3)}
    # --8<-- [end:two-answers]

    # --8<-- [start:chances]
    torch.manual_seed(0)
    start_BS, end_BS = torch.randn(2, 10_000, 40, dtype=torch.float64)
    inside_BS = torch.ones(10_000, 40, dtype=torch.bool)
    scored_B, _ = best_span(start_BS, end_BS, inside_BS, 10)
    likely_B, _ = best_span(
        start_BS.log_softmax(-1), end_BS.log_softmax(-1), inside_BS, 10
    )
    same = (scored_B == likely_B).float().mean().item()
    print(f"sum of scores and product of chances choose alike: {same:.0%}")
    assert same == 1
    # --8<-- [end:chances]
