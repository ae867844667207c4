"""MLA's weight absorption: the same numbers by another order of products."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.decoding.mla import absorbed_attend, expanded_attend
from snippets.properties.cost import count_flops


# --8<-- [start:flops]
def flops(T: int, S: int, H: int, K: int, R: int, U: int) -> tuple[int, int]:
    """Return the FLOPs of T queries on S latents, expanded and absorbed (V = K)."""
    expanded = 2 * H * (S * R * 2 * K + T * S * (K + U + K))
    absorbed = 2 * H * (T * R * 2 * K + T * S * (R + U + R))
    return expanded, absorbed


# --8<-- [end:flops]


# --8<-- [start:draw]
def draw(T: int, S: int, H: int, K: int, R: int, U: int) -> list[Tensor]:
    """Return queries, rotated queries, cache, and the matrices of keys and values."""
    shapes = ((1, H, T, K), (1, H, T, U), (1, S, R + U), (H, K, R), (H, K, R))
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


# --8<-- [end:draw]


if __name__ == "__main__":
    # --8<-- [start:equal]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    input_any = draw(T=3, S=50, H=4, K=16, R=24, U=8)
    right_any, absorbed_any = expanded_attend(*input_any), absorbed_attend(*input_any)
    gap = (absorbed_any - right_any).abs().max().item()
    print(f"4 heads of 16, rank 24: largest difference {gap:.0e}")
    assert gap < 1e-12
    to_out_HVD = torch.randn(4, 16, 64, dtype=torch.float64)
    merged_HRD = torch.einsum("HVR,HVD->HRD", input_any[4], to_out_HVD)  # W_UV into W_O
    latent_BHTR = torch.randn(1, 4, 3, 24, dtype=torch.float64)
    value_BHTV = torch.einsum("BHTR,HVR->BHTV", latent_BHTR, input_any[4])
    one_BTD = torch.einsum("BHTV,HVD->BTD", value_BHTV, to_out_HVD)
    two_BTD = torch.einsum("BHTR,HRD->BTD", latent_BHTR, merged_HRD)
    assert torch.allclose(one_BTD, two_BTD)
    # --8<-- [end:equal]

    # --8<-- [start:break-even]
    torch.manual_seed(0)
    small = {"H": 2, "K": 16, "R": 32, "U": 8}
    for queries, keys in ((1, 64), (64, 64)):
        input_any = draw(queries, keys, **small)
        counted = [
            count_flops(lambda f=f, input_any=input_any: f(*input_any))
            for f in (expanded_attend, absorbed_attend)
        ]
        assert counted == list(flops(queries, keys, **small))  # the formula holds
    even = {}
    for keys in (256, 4096, 65536):
        size = {"S": keys, "H": 128, "K": 128, "R": 512, "U": 64}  # DeepSeek-V2
        expanded, absorbed = flops(1, **size)
        even[keys] = 1
        while flops(even[keys], **size)[1] <= flops(even[keys], **size)[0]:
            even[keys] += 1
        print(
            f"S = {keys:5}, one query: expanded {expanded / absorbed:5.1f} × absorbed;"
            f" expanded is less from T = {even[keys]}"
        )
    # --8<-- [end:break-even]

    # --8<-- [start:premerged]
    torch.manual_seed(0)
    heads, size, rank, query_rank = 128, 128, 512, 1536  # DeepSeek-V2
    apart = heads * size * (query_rank + rank)
    merged = heads * query_rank * rank
    print(
        f"W_UQ and W_UK: {apart / 1e6:.1f} M weights, multiplied out {merged / 1e6:.1f} M"
    )
    assert merged == 3 * apart
    # --8<-- [end:premerged]
