"""Which backend of SDPA ran: ask, force one, and read why it refuses."""

# --8<-- [start:imports]
import warnings
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

# --8<-- [end:imports]
# isort: split
from snippets.efficient.sdpa_backends import qkv, which_backend, why_not


# --8<-- [start:listen]
def listen(call: Callable) -> list[str]:
    """Return what PyTorch says during one call: warnings, and an error at last."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            call()
        except RuntimeError as error:
            told.append(warnings.WarningMessage(error, RuntimeError, "", 0))
    return [str(one.message).split(" (Triggered")[0] for one in told]


# --8<-- [end:listen]

if __name__ == "__main__":
    # --8<-- [start:ran]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    sdpa, ran = F.scaled_dot_product_attention, {}
    bias_66 = torch.zeros(6, 6, device="cpu")
    for name, sizes, options in (
        ("plain", {}, {}),
        ("is_causal", {}, {"is_causal": True}),
        ("float mask", {}, {"attn_mask": bias_66}),
        ("learned mask", {}, {"attn_mask": bias_66.clone().requires_grad_()}),
        ("dropout", {}, {"dropout_p": 0.1}),
        ("V ≠ K", {"V": 8}, {}),
    ):
        call = partial(sdpa, *qkv(device="cpu", **sizes), **options)
        ran[name] = which_backend(call)
        reasons = why_not(call, SDPBackend.FLASH_ATTENTION)[1:-1]
        print(f"CPU, {name}: {ran[name]}", *[f"({one[:70]}…)" for one in reasons])
    # --8<-- [end:ran]

    # --8<-- [start:force]
    torch.manual_seed(0)
    sdpa = F.scaled_dot_product_attention
    qkv_any, forced = qkv(device="cpu"), {}
    for backend in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION):
        with sdpa_kernel(backend):
            forced[backend.name] = which_backend(partial(sdpa, *qkv_any))
    print("forced:", forced)
    silent = listen(partial(sdpa, *qkv_any, dropout_p=0.1))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        loud = listen(partial(sdpa, *qkv_any, dropout_p=0.1))
    print("dropout, any backend:", silent)
    print("dropout, flash only:", loud)
    assert silent == []
    assert loud[-1] == "No available kernel.  Aborting execution."
    # --8<-- [end:force]

    # --8<-- [start:passed]
    torch.manual_seed(0)
    sdpa, passed = F.scaled_dot_product_attention, {}
    for V in (16, 8):  # a test of “our flash attention”, at two sizes of the values
        q_any, k_any, v_any = qkv(V=V, device="cpu", dtype=torch.float64)
        expected_any = (q_any @ k_any.mT / 4).softmax(-1) @ v_any
        error = (sdpa(q_any, k_any, v_any) - expected_any).abs().max().item()
        launched = which_backend(partial(sdpa, q_any, k_any, v_any)) == "flash"
        passed[V] = error < 1e-12, launched
        print(f"V = {V:2}: off by {error:.0e}, PASSED; flash launched: {launched}")
    assert passed == {16: (True, True), 8: (True, False)}
    # --8<-- [end:passed]
