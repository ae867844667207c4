"""Large weights that matter, and large weights that do not."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:accuracy]
def accuracy(weight_BS: Tensor, v_BSV: Tensor, class_B: Tensor) -> float:
    """Return how often the largest entry of the output is the class."""
    out_BV = torch.einsum("BS,BSV->BV", weight_BS, v_BSV)
    return (out_BV.argmax(-1) == class_B).float().mean().item()


# --8<-- [end:accuracy]

if __name__ == "__main__":
    # --8<-- [start:shuffle]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    B, S, V = 5000, 8, 4
    place_B, class_B = torch.randint(S, (B,)), torch.randint(V, (B,))
    cue_BS1 = F.one_hot(place_B, S).unsqueeze(-1)
    answer_B1V = F.one_hot(class_B, V).unsqueeze(1)
    noise_BSV = 0.2 * torch.randn(B, S, V)
    weight_BS = torch.softmax(5.0 * cue_BS1.squeeze(-1), dim=-1)
    moved_BS = weight_BS.roll(3, dims=1)
    result = {}
    for name, v_BSV in (
        ("class at one position", cue_BS1 * answer_B1V + noise_BSV),
        ("class at every position", answer_B1V + noise_BSV),
    ):
        result[name] = (
            accuracy(weight_BS, v_BSV, class_B),
            accuracy(moved_BS, v_BSV, class_B),
        )
        print("{:24} accuracy {:.2f}, weights moved {:.2f}".format(name, *result[name]))
    print(f"weight on the position of the cue, in both: {weight_BS.max().item():.2f}")
    assert result["class at one position"][1] < 0.5 < result["class at one position"][0]
    assert min(result["class at every position"]) > 0.95
    # --8<-- [end:shuffle]

    # --8<-- [start:norm]
    torch.manual_seed(0)
    share_3 = torch.tensor([0.90, 0.06, 0.04])
    v_32 = torch.tensor([[0.01, 0.0], [3.0, 0.0], [0.0, 4.0]])
    contribution_3 = (share_3.unsqueeze(1) * v_32).norm(dim=1)
    out_2 = share_3 @ v_32
    masked_2 = (share_3[1:] / share_3[1:].sum()) @ v_32[1:]
    print("weights:      ", [f"{w:.2f}" for w in share_3.tolist()])
    print("contributions:", [f"{w:.2f}" for w in contribution_3.tolist()])
    assert share_3.argmax() == contribution_3.argmin()
    growth = (masked_2.norm() / out_2.norm()).item()
    zeroed = (share_3[1:] @ v_32[1:]).norm().item() / out_2.norm().item()
    print(f"output without the first value: {zeroed:.2f} of its length", end="; ")
    print(f"with the first key masked: {growth:.1f} times")
    assert abs(zeroed - 1) < 0.1 < 5 < growth
    # --8<-- [end:norm]
