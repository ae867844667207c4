"""MHA, GQA and MQA: shapes, what is saved where, and work per byte of cache."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:shapes]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    q_BHTK = torch.randn(2, 8, 5, 16)
    for name, kv_heads in (("MHA", 8), ("GQA-2", 2), ("MQA", 1)):
        k_any, v_any = torch.randn(2, 2, kv_heads, 5, 16)
        out_BHTK = F.scaled_dot_product_attention(q_BHTK, k_any, v_any, enable_gqa=True)
        assert out_BHTK.shape == q_BHTK.shape  # the output never shrinks
        print(f"{name:5} K and V {tuple(k_any.shape)}, output {tuple(out_BHTK.shape)}")
    # --8<-- [end:shapes]

    # --8<-- [start:saved]
    torch.manual_seed(0)
    layers, model, heads, kv_heads, size = 32, 4096, 32, 8, 128  # Llama 3 8B
    held, cached = {}, {}  # bytes in bfloat16: W_K and W_V; K and V of one token
    for kept in (heads, kv_heads):
        kind = {"device": "meta", "dtype": torch.bfloat16}
        to_k = nn.Linear(model, kept * size, bias=False, **kind)
        held[kept] = 2 * layers * to_k.weight.nbytes
        cached[kept] = 2 * layers * torch.empty(kept, size, **kind).nbytes
    in_weights, a_token = (each[heads] - each[kv_heads] for each in (held, cached))
    print(f"32 to 8 kv heads: weights −{in_weights / 2**20:.0f} MiB, once")
    for tokens in (1, 4096, 8 * 4096, 64 * 8192):
        in_cache = tokens * a_token
        ratio = in_cache / in_weights
        print(f"{tokens:6} tokens: cache −{in_cache / 2**20:9.1f} MiB, {ratio:g} ×")
    assert in_weights == model * a_token  # even at D tokens
    # --8<-- [end:saved]

    # --8<-- [start:intensity]
    torch.manual_seed(0)
    work = {}
    for name, kv_heads in (("MHA", 32), ("GQA-8", 8), ("MQA", 1)):
        q_any = torch.randn(1, 32, 1, 128)  # one decoding step of one sequence
        k_any, v_any = torch.randn(2, 1, kv_heads, 1024, 128)
        with FlopCounterMode(display=False) as counter:
            score_any = q_any.unflatten(1, (kv_heads, -1)).squeeze(3) @ k_any.mT
            torch.softmax(score_any / 128**0.5, dim=-1) @ v_any
        flops = counter.get_total_flops()
        read = 2 * (k_any.numel() + v_any.numel())  # bytes in bfloat16
        work[name] = flops / read
        print(f"{name:5} {flops} FLOPs, {read} bytes: {work[name]:g} FLOPs a byte")
    assert list(work.values()) == [1, 4, 32]  # H / G
    # --8<-- [end:intensity]
