"""One sentence: what this file is about."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:demo]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    x_TD = torch.randn(4, 8)
    assert x_TD.shape == (4, 8)
    print("what the page quotes:", tuple(x_TD.shape))
    # --8<-- [end:demo]
