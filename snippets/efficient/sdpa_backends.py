"""Which backend of scaled_dot_product_attention ran, read from what was dispatched."""

# --8<-- [start:imports]
import warnings
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

# --8<-- [end:imports]
# isort: split
# --8<-- [start:tools]
import matplotlib.pyplot as plt
from torch.profiler import profile

# --8<-- [end:tools]
# isort: split
from snippets.properties.cost import largest_bytes, peak_bytes, plot_growth

# --8<-- [start:names]
OPERATORS = {
    "_scaled_dot_product_flash_attention": "flash",
    "_scaled_dot_product_flash_attention_for_cpu": "flash",
    "_scaled_dot_product_efficient_attention": "efficient",
    "_scaled_dot_product_cudnn_attention": "cudnn",
    "_scaled_dot_product_fused_attention_overrideable": "overrideable",
    "_safe_softmax": "math",  # the math backend has no operator of its own
}
NODES = {
    "ScaledDotProductFlashAttentionBackward0": "flash",
    "ScaledDotProductFlashAttentionForCpuBackward0": "flash",
    "ScaledDotProductEfficientAttentionBackward0": "efficient",
    "ScaledDotProductCudnnAttentionBackward0": "cudnn",
    "ScaledDotProductFusedAttentionOverrideableBackward0": "overrideable",
    "SafeSoftmaxBackward0": "math",
}
# --8<-- [end:names]


# --8<-- [start:which-backend]
class Listener(TorchDispatchMode):
    """Notes the backend of each attention that is dispatched while it is entered."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.heard: list[str] = []

    def __torch_dispatch__(self, func, types, args_any=(), kwargs=None):
        """Run an operator; note it if it is the mark of a backend."""
        name = func.overloadpacket.__name__
        if name in OPERATORS:
            self.heard.append(OPERATORS[name])
        return func(*args_any, **(kwargs or {}))


def which_backend(call: Callable) -> str:
    """Run `call` once and return the backend of its scaled_dot_product_attention.

    Returns "flash", "efficient", "cudnn", "overrideable" or "math"; several of them,
    in the order of their first use, joined by ", "; "none" where there was no such
    attention. What `call` raises is raised.
    """
    with Listener() as listener:
        call()
    return ", ".join(dict.fromkeys(listener.heard)) or "none"


# --8<-- [end:which-backend]


# --8<-- [start:backend-in-graph]
def backend_in_graph(out_any: Tensor) -> str:
    """Return the same from the graph behind a result, after the fact.

    The nearest attention comes first. Raises ValueError when there is no graph.
    """
    if out_any.grad_fn is None:
        raise ValueError("the result has no grad_fn: run with gradients, or listen")
    found, seen, queue = [], set(), [out_any.grad_fn]
    while queue:
        node = queue.pop(0)
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() in NODES:
            found.append(NODES[node.name()])
        queue += [before for before, _ in node.next_functions]
    return ", ".join(dict.fromkeys(found)) or "none"


# --8<-- [end:backend-in-graph]


# --8<-- [start:why-not]
def why_not(call: Callable, backend: SDPBackend) -> list[str]:
    """Return what PyTorch says against running `call` on one backend; [] if it runs."""
    with warnings.catch_warnings(record=True) as told, sdpa_kernel(backend):
        warnings.simplefilter("always")
        try:
            call()
        except RuntimeError as error:
            said = [str(one.message).split(" (Triggered")[0] for one in told]
            return [*said, str(error).split(". ")[0]]
    return []


# --8<-- [end:why-not]


# --8<-- [start:qkv]
def qkv(
    *, T: int = 6, S: int = 6, K: int = 16, V: int = 16, G: int = 4, **options
) -> tuple[Tensor, Tensor, Tensor]:
    """Return random queries of 4 heads, and keys and values of G heads."""
    made = partial(torch.randn, **options)
    return made(2, 4, T, K), made(2, G, S, K), made(2, G, S, V)


# --8<-- [end:qkv]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    sdpa = F.scaled_dot_product_attention
    given_any = qkv(requires_grad=True)
    out_any = sdpa(*given_any)
    print("dispatched:", which_backend(partial(sdpa, *given_any)))
    print("in the graph:", backend_in_graph(out_any), "-", out_any.grad_fn.name())
    # --8<-- [end:first-look]

    # --8<-- [start:profiler]
    with profile() as profiled:
        sdpa(*given_any)
    print(*[one.key for one in profiled.key_averages() if "scaled_dot" in one.key])
    # --8<-- [end:profiler]

    # --8<-- [start:cases]
    on = torch.get_default_device().type
    mask_66 = torch.ones(6, 6, dtype=torch.bool).tril()
    bias_66 = torch.zeros(6, 6)
    cases = {
        "plain": (qkv(), {}),
        "float64": (qkv(dtype=torch.float64), {}),
        "bfloat16": (qkv(dtype=torch.bfloat16), {}),
        "with gradients": (qkv(requires_grad=True), {}),
        "is_causal": (qkv(), {"is_causal": True}),
        "is_causal, T ≠ S": (qkv(S=9), {"is_causal": True}),
        "boolean mask": (qkv(), {"attn_mask": mask_66}),
        "float mask": (qkv(), {"attn_mask": bias_66}),
        "enable_gqa": (qkv(G=2), {"enable_gqa": True}),
        "learned float mask": (qkv(), {"attn_mask": bias_66.clone().requires_grad_()}),
        "mask of 3 axes": (qkv(), {"attn_mask": mask_66.expand(4, 6, 6)}),
        "dropout": (qkv(), {"dropout_p": 0.1}),
        "V ≠ K": (qkv(V=8), {}),
        "3 axes": (tuple(one_any[0] for one_any in qkv()), {}),
    }
    for name, (tensors_any, options) in cases.items():
        print(f"{on}, {name}: {which_backend(partial(sdpa, *tensors_any, **options))}")
    # --8<-- [end:cases]

    # --8<-- [start:reasons]
    for name in ("dropout", "V ≠ K", "3 axes"):
        tensors_any, options = cases[name]
        call = partial(sdpa, *tensors_any, **options)
        print(f"{name}:", *why_not(call, SDPBackend.FLASH_ATTENTION)[1:-1])
    # --8<-- [end:reasons]

    # --8<-- [start:growth]
    lengths, flash, math_ = [256, 512, 1024, 2048], [], []
    for length in lengths:
        call = partial(sdpa, *qkv(T=length, S=length, dtype=torch.float16))
        for backend, values in (
            (SDPBackend.FLASH_ATTENTION, flash),
            (SDPBackend.MATH, math_),
        ):
            with sdpa_kernel(backend):
                values.append(peak_bytes(call))
    print(f"T = S = 2048: {flash[-1] / 2**20:.1f} and {math_[-1] / 2**20:.1f} MiB")
    plot_growth(lengths, {"flash": (flash, 1), "math": (math_, 2)})
    plt.ylabel("peak bytes")
    plt.show()
    # --8<-- [end:growth]

    # --8<-- [start:silent]
    tensors_any = qkv(T=1024, S=1024)
    for name, options in (("no dropout", {}), ("dropout", {"dropout_p": 0.1})):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            made = largest_bytes(partial(sdpa, *tensors_any, **options))
        print(f"{name}: largest tensor {made / 2**20:.1f} MiB, {len(told)} warnings")
    # --8<-- [end:silent]

    # --8<-- [start:bias]
    slope = torch.tensor(0.5, requires_grad=True)
    distance_66 = torch.arange(6.0)[:, None] - torch.arange(6.0)
    for name, steep in (("learned", slope), ("frozen", slope.detach())):
        call = partial(sdpa, *qkv(), attn_mask=-steep * distance_66)
        print(f"{name} bias: {which_backend(call)}")
    # --8<-- [end:bias]

    try:
        # --8<-- [start:no-backend]
        with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
            sdpa(*qkv(dtype=torch.float64))
        # --8<-- [end:no-backend]
    except RuntimeError as error:
        print(error)
