"""Without positions and without a mask, self-attention sees a bag of words."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]
# isort: split
from snippets.positions.sinusoidal import sinusoidal

if __name__ == "__main__":
    # --8<-- [start:bag]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    encoder = encoder.double().eval()
    words_TD = torch.randn(3, 32, dtype=torch.float64)  # dog, bites, man
    order_T = torch.tensor([2, 1, 0])  # man, bites, dog
    gaps = {}
    for name, size in (("no positions", 0.0), ("with positions", 1.0)):
        pos_TD = size * sinusoidal(torch.arange(3), 32).double()
        with torch.no_grad():
            first_TD = encoder((words_TD + pos_TD).unsqueeze(0))[0]
            second_TD = encoder((words_TD[order_T] + pos_TD).unsqueeze(0))[0]
        dog = (first_TD[0] - second_TD[2]).abs().max().item()
        pooled = (first_TD.mean(0) - second_TD.mean(0)).abs().max().item()
        gaps[name] = (dog, pooled)
        print(f"{name}: 'dog' moves by {dog:.2g}, the mean by {pooled:.2g}")
    assert max(gaps["no positions"]) < 1e-12
    assert min(gaps["with positions"]) > 0.01
    # --8<-- [end:bag]
