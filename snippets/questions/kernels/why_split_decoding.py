"""One query has little work to share out; splitting the keys makes more, exactly."""

# --8<-- [start:imports]
import math
from functools import partial

import torch

# --8<-- [end:imports]
# isort: split
from snippets.decoding.split_kv import split_attend
from snippets.foundations.scaled_dot_product import attend
from snippets.properties.cost import count_flops

if __name__ == "__main__":
    # --8<-- [start:pieces]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    B, H, units = 1, 32, 108  # an A100 has 108 multiprocessors
    pieces = {
        "prefill, tiles of 64 queries": B * H * math.ceil(4096 / 64),
        "decoding, one query": B * H,
        "decoding, keys in 16 parts": B * H * 16,
    }
    for name, number in pieces.items():
        busy = min(1, number / units)
        print(f"{name}: {number:4} pieces of work, at most {busy:.0%} of 108 busy")
    # --8<-- [end:pieces]

    # --8<-- [start:exact]
    torch.manual_seed(0)
    q_BHTK = torch.randn(1, 8, 1, 64).double()
    k_BHSK, v_BHSV = torch.randn(2, 1, 8, 4096, 64).double().unbind(0)
    whole_BHTV = attend(q_BHTK, k_BHSK, v_BHSV)
    flops = count_flops(partial(attend, q_BHTK, k_BHSK, v_BHSV))
    cache, gap, ratio = 2 * k_BHSK.numel(), {}, {}
    for splits in (1, 7, 16, 64):
        call = partial(split_attend, q_BHTK, k_BHSK, v_BHSV, splits)
        gap[splits] = (call() - whole_BHTV).abs().max().item()
        ratio[splits] = count_flops(call) / flops
        extra = splits * 8 * (64 + 1)  # an output and a log-sum-exp for each part
        print(f"{splits:2} parts: off by {gap[splits]:.0e}, FLOPs × {ratio[splits]:.3f},"
              f" written in between {extra / cache:.2%} of the cache read")  # fmt: skip
    assert max(gap.values()) < 1e-12
    assert max(ratio.values()) < 1.01
    # --8<-- [end:exact]

    # --8<-- [start:how-many]
    torch.manual_seed(0)
    wait = {}
    for splits in (1, 2, 4, 8, 16, 64, 256, 1024):
        rounds = math.ceil(1 * 32 * splits / 108)  # pieces that wait for a free place
        keys = math.ceil(65536 / splits)
        wait[splits] = rounds * keys + splits  # then the parts are merged
        print(f"{splits:4} parts: {rounds:3} rounds of {keys:5} keys, then"
              f" {splits:4} parts to merge: {wait[splits]:5}")  # fmt: skip
    gain = wait[1] / wait[64]
    print(f"at best {gain:.1f} times less to wait for; 108 / 32 = {108 / 32:.1f}")
    assert min(wait, key=wait.get) == 64
    assert 3.3 < gain < 108 / 32
    # --8<-- [end:how-many]
