"""What FlashAttention changes: not the result, not the operations, but the memory."""

# --8<-- [start:imports]
import functools

import torch

# --8<-- [end:imports]
# isort: split
from snippets.efficient.flash_forward import flash_forward
from snippets.foundations.scaled_dot_product import attend
from snippets.properties.cost import count_flops, largest_bytes

if __name__ == "__main__":
    # --8<-- [start:compare]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    flops, bytes_of = {}, {}
    for length in (256, 512, 1024):
        x_any = torch.randn(1, 1, length, 32).double()
        error_any = flash_forward(x_any, x_any, x_any)[0] - attend(x_any, x_any, x_any)
        gap = error_any.abs().max().item()
        for name, call in (("plain", attend), ("flash", flash_forward)):
            run = functools.partial(call, x_any, x_any, x_any)
            flops[name], bytes_of[name, length] = count_flops(run), largest_bytes(run)
        print(f"T = {length:4}: apart {gap:.0e}; FLOPs {flops['flash'] / flops['plain']:.2f}"
              f" of plain; largest tensor {bytes_of['plain', length] // 1024:5} and"
              f" {bytes_of['flash', length] // 1024} KiB")  # fmt: skip
        assert gap < 1e-12
        assert flops["flash"] == flops["plain"]
    assert bytes_of["plain", 1024] == 4 * bytes_of["plain", 512]
    assert bytes_of["flash", 1024] <= 2 * bytes_of["flash", 512]
    # --8<-- [end:compare]
