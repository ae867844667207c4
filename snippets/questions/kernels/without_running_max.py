"""Softmax without its maximum: overflow above, and nothing left below."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:limits]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        info = torch.finfo(dtype)
        high = torch.tensor(info.max, dtype=torch.float64).log().item()
        print(f"{dtype}: exp overflows above {high:.1f}")
    for top in (10.0, 88.0, 89.0, -104.0):
        score_3 = torch.tensor([top, top - 1, top - 2])
        plain_3 = score_3.exp() / score_3.exp().sum()
        safe_3 = score_3.softmax(-1)
        print(
            f"largest score {top:6}: plain {plain_3[0]:.3f}, with maximum {safe_3[0]:.3f}"
        )
        right = torch.isclose(plain_3[0], safe_3[0], atol=1e-3).item()
        assert right == (top in (10.0, 88.0))
    # --8<-- [end:limits]

    # --8<-- [start:tiles]
    torch.manual_seed(0)
    score_NC = torch.tensor([[1.0, 2.0], [95.0, 3.0], [4.0, 90.0]])  # three tiles
    exact_S = score_NC.flatten().double().softmax(-1)
    first = score_NC[0].max()  # keep the maximum of the first tile for good
    kept_S = (score_NC.flatten() - first).exp()
    top, total = torch.tensor(-torch.inf), torch.tensor(0.0)
    for tile_C in score_NC:
        new = torch.maximum(top, tile_C.max())
        total = total * (top - new).exp() + (tile_C - new).exp().sum()
        top = new
    running_S = (score_NC.flatten() - top).exp() / total
    print("maximum of the first tile:", (kept_S / kept_S.sum()).max().item())
    print(f"running maximum: {running_S.max():.4f}, exact {exact_S.max():.4f}")
    assert (kept_S / kept_S.sum()).isnan().any()
    torch.testing.assert_close(running_S.double(), exact_S)
    # --8<-- [end:tiles]
