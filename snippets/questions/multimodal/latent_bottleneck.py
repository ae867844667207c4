"""A few latents read a long input: cost M·N instead of M², and a bottleneck of N."""

# --8<-- [start:imports]
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

# --8<-- [end:imports]
from snippets.foundations.scaled_dot_product import attend


# --8<-- [start:read]
def read(q_TK: Tensor, x_SK: Tensor) -> Tensor:
    """Let T vectors read S vectors with one head, keys and values alike: (T, K)."""
    x_11SK = x_SK[None, None]
    return attend(q_TK[None, None], x_11SK, x_11SK)[0, 0]


def flops(queries: int, keys: int) -> int:
    """Count the FLOPs of so many vectors of size 32 reading so many."""
    with FlopCounterMode(display=False) as counter:
        read(torch.randn(queries, 32), torch.randn(keys, 32))
    return counter.get_total_flops()


# --8<-- [end:read]

if __name__ == "__main__":
    # --8<-- [start:count]
    M, N, reads, layers = 224 * 224, 512, 8, 48  # Jaegle et al. 2021, §4.1
    cross, latent, full = reads * M * N, layers * N * N, layers * M * M
    print(f"{M:,} pixels, {N} latents, {layers} layers; scores of one head:")
    print(f"{reads} reads of the pixels {cross:15,}")
    print(f"{layers} layers of latents  {latent:15,}")
    print(f"{layers} layers of pixels   {full:15,}")
    ratio = full / (cross + latent)
    print(f"{ratio:.0f} times as many")
    # --8<-- [end:count]

    # --8<-- [start:scale]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    print("inputs  16 latents read them  they read each other (MFLOPs)")
    counted = {}
    for length in (256, 512, 1024):
        counted[length] = [flops(16, length), flops(length, length)]
        few, all_of_them = (x / 1e6 for x in counted[length])
        print(f"{length:6} {few:21.2f} {all_of_them:21.1f}")
    assert [x / y for x, y in zip(counted[1024], counted[512], strict=True)] == [2, 4]
    # --8<-- [end:scale]

    # --8<-- [start:rank]
    torch.manual_seed(0)
    x_SK = torch.randn(64, 32, dtype=torch.float64)
    rank = {"no latents": torch.linalg.matrix_rank(read(x_SK, x_SK)).item()}
    for latents in (1, 4, 16, 64):
        latent_any = read(torch.randn(latents, 32, dtype=torch.float64), x_SK)
        back_SK = read(x_SK, latent_any)  # each input asks the latents
        rank[latents] = torch.linalg.matrix_rank(back_SK).item()
    print("64 outputs of size 32 read back from so many latents have rank:", rank)
    assert rank == {"no latents": 32, 1: 1, 4: 4, 16: 16, 64: 32}
    # --8<-- [end:rank]

    # --8<-- [start:order]
    torch.manual_seed(0)
    latent_TK, x_SK, place_SK = (torch.randn(n, 32).double() for n in (8, 64, 64))
    order_S, moved = torch.randperm(64), {}
    for name, tag_SK in (("bare", 0 * place_SK), ("with places", place_SK)):
        gap_TK = read(latent_TK, x_SK + tag_SK) - read(
            latent_TK, x_SK[order_S] + tag_SK
        )
        moved[name] = gap_TK.abs().max().item()
        print(f"inputs shuffled, {name}: latents move by {moved[name]:.0e}")
    assert moved["bare"] < 1e-12 < moved["with places"]
    # --8<-- [end:order]
