"""A word can be read from the sum of its embedding and a positional code."""

# --8<-- [start:imports]
import math

import torch

# --8<-- [end:imports]
# isort: split
from snippets.positions.sinusoidal import sinusoidal

if __name__ == "__main__":
    # --8<-- [start:recover]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")

    def words_read(size: int, scaled: bool, ignored: int) -> float:
        """Read words by their table, without the main directions of the codes."""
        word_any = torch.randn(1000, size) / (1 if scaled else math.sqrt(size))
        codes_any = sinusoidal(torch.arange(64), size)
        main_any = torch.linalg.svd(codes_any, full_matrices=False)[2][:ignored].float()
        row_any = word_any - word_any @ main_any.T @ main_any
        own_any = word_any @ row_any.T - row_any.square().sum(1) / 2
        found = 0
        for code_N in codes_any.float() @ row_any.T:
            found += ((own_any + code_N).argmax(1) == torch.arange(1000)).sum().item()
        return found / 64000

    right = {}
    for size, scaled, ignored in (
        (8, True, 0),
        (16, True, 0),
        (32, True, 0),
        (512, True, 0),
        (512, False, 0),
        (512, False, 32),
    ):
        right[size, scaled, ignored] = words_read(size, scaled, ignored)
        name = "words times √D" if scaled else "words not multiplied"
        print(
            f"D = {size:3}, {name}, {ignored:2} directions ignored:"
            f" {right[size, scaled, ignored]:.1%} of the words read"
        )
    code_any = sinusoidal(torch.arange(64), 512).float()
    word_any = torch.randn(1000, 1, 512)
    score_any = (word_any + code_any) @ code_any.T - code_any.square().sum(1) / 2
    near_any = (score_any.argmax(dim=2) - torch.arange(64)).abs()
    place = (near_any == 0).double().mean().item()
    beside = (near_any <= 1).double().mean().item()
    print(f"D = 512: {place:.0%} of the positions read, {beside:.1%} to within 1")
    assert right[512, True, 0] == right[512, False, 32] == 1
    assert beside > place > 0.5
    assert max(right[8, True, 0], right[512, False, 0]) < 0.5
    # --8<-- [end:recover]
