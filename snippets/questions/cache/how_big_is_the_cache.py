"""How many bytes the KV cache of published models takes, counted and allocated."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]
# isort: split
from snippets.decoding.kv_cache import KVCache, cache_bytes

if __name__ == "__main__":
    # --8<-- [start:models]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    token = {
        "Llama 2 7B, MHA": cache_bytes(layers=32, kv_heads=32, size=128),
        "Llama 3 8B, GQA": cache_bytes(layers=32, kv_heads=8, size=128),
        "Llama 3 70B, GQA": cache_bytes(layers=80, kv_heads=8, size=128),
        "DeepSeek-V2, MLA": 60 * (512 + 64) * 2,  # no factor 2 for K and V
    }
    for name, each in token.items():
        print(f"{name:16} {each / 2**10:5} KiB a token, 4096: {each / 2**18:.2f} GiB")
    assert [each / 2**10 for each in token.values()] == [512, 128, 320, 67.5]
    # --8<-- [end:models]

    # --8<-- [start:heads]
    torch.manual_seed(0)
    made = KVCache(batch=1, heads=8, capacity=4096, size=128, dtype=torch.bfloat16)
    held = made.k_BHSK.nbytes + made.v_BHSV.nbytes
    right = 4096 * cache_bytes(layers=1, kv_heads=8, size=128)
    wrong = 4096 * cache_bytes(layers=1, kv_heads=32, size=128)
    print(f"a layer of Llama 3 8B holds {held / 2**20:.0f} MiB at 4096 positions;")
    print(f"the formula says {right / 2**20:.0f}, with query heads {wrong / 2**20:.0f}")
    assert held == right == wrong / 4
    # --8<-- [end:heads]

    # --8<-- [start:latent]
    latent, rotated, heads, size, model = 512, 64, 128, 128, 5120
    full = cache_bytes(layers=1, kv_heads=heads, size=size, each=1)
    share = {
        "(R + U) / 2HK": (latent + rotated) / full,
        "R / 2HK, no rotated key": latent / full,
        "(R + U) / 2D, wrong base": (latent + rotated) / (2 * model),
    }
    for name, value in share.items():
        print(f"{name:24} {value:.2%}")
    assert heads * size != model  # so 2D is not what MHA would cache
    assert share["(R + U) / 2HK"] < 0.018 < 0.05 < share["(R + U) / 2D, wrong base"]
    # --8<-- [end:latent]

    # --8<-- [start:weights]
    weights = 6.7e9 * 2  # bytes of a 7B model in bfloat16
    even = weights / cache_bytes(layers=32, kv_heads=32, size=128)
    print(f"{even:.0f} tokens of cache weigh as much: {even / 4096:.1f} × 4096")
    assert 6 < even / 4096 < 7
    # --8<-- [end:weights]
