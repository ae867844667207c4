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
    right = {}
    for size, scaled in ((8, True), (16, True), (32, True), (512, True), (512, False)):
        word_any = torch.randn(1000, size) / (1 if scaled else math.sqrt(size))
        half_N = word_any.square().sum(1) / 2
        found = 0
        for code_any in sinusoidal(torch.arange(64), size).float():
            nearest_N = ((word_any + code_any) @ word_any.T - half_N).argmax(dim=1)
            found += (nearest_N == torch.arange(1000)).sum().item()
        right[size, scaled] = found / 64000
        name = "words times √D" if scaled else "words not multiplied"
        print(f"D = {size:3}, {name}: {right[size, scaled]:.1%} of the words read")
    code_any = sinusoidal(torch.arange(64), 512).float()
    word_any = torch.randn(1000, 1, 512)
    score_any = (word_any + code_any) @ code_any.T - code_any.square().sum(1) / 2
    near_any = (score_any.argmax(dim=2) - torch.arange(64)).abs()
    place = (near_any == 0).double().mean().item()
    beside = (near_any <= 1).double().mean().item()
    print(f"D = 512: {place:.0%} of the positions read, {beside:.1%} to within 1")
    assert right[512, True] == 1
    assert beside > place > 0.5
    assert right[8, True] < 0.5
    assert right[512, False] < 0.5
    # --8<-- [end:recover]
