"""Exercise: which backend of SDPA ran."""

from snippets.properties.judge import Broken, Draw, check

# isort: split
# --8<-- [start:checks]
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BOTH = {"flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH}


def expect(came: object, right: object) -> None:
    """Expect an answer; tell what came and what is right."""
    if came != right:
        raise Broken(f"{came!r}, expected {right!r}", f"得到 {came!r}，应为 {right!r}")


def forced(backend: str, q, k, v, **options):
    """Return attention on one backend."""
    with sdpa_kernel(BOTH[backend]):
        return F.scaled_dot_product_attention(q, k, v, **options)


def leaf(draw: Draw) -> torch.Tensor:
    """Return a leaf that wants a gradient, (1, 2, T, 4)."""
    return draw.normal(1, 2, draw.size("T", 1, 4), 4).requires_grad_()


@check(en="Hears the backend that was forced", zh="听得出强制使用的后端")
def heard(attempt, draw: Draw):
    name, x = draw.choice("backend", BOTH), leaf(draw)
    expect(attempt.which_backend(lambda: forced(name, x, x, x)), name)


@check(en="Knows the operators of CUDA", zh="认得 CUDA 的算子")
def cuda(attempt, draw: Draw):
    x, aten = torch.empty(1, 2, 8, 16, device="meta"), torch.ops.aten
    efficient = aten._scaled_dot_product_efficient_attention
    cudnn = aten._scaled_dot_product_cudnn_attention
    for name, operator in (("efficient", efficient), ("cudnn", cudnn)):
        run = attempt.which_backend(lambda op=operator: op(x, x, x, None, False))
        expect(run, name)


@check(en="A softmax of one's own is none", zh="自己写的 softmax 不算")
def own(attempt, draw: Draw):
    x = leaf(draw)
    expect(attempt.which_backend(lambda: (x @ x.mT).softmax(-1) @ x), "none")
    expect(attempt.backend_in_graph((x @ x.mT).softmax(-1) @ x), "none")


@check(en="Several backends, in order, each once", zh="多个后端按次序列出，各一次")
def several(attempt, draw: Draw):
    first, x = draw.choice("first", BOTH), leaf(draw)
    last = {"flash": "math", "math": "flash"}[first]

    def call():
        out = forced(first, x, x, x)
        return forced(last, forced(last, out, x, x), x, x)

    expect(attempt.which_backend(call), f"{first}, {last}")
    expect(attempt.backend_in_graph(call()), f"{last}, {first}")


@check(en="The call runs once; what it raises is raised", zh="只运行一次；异常照常抛出")
def once(attempt, draw: Draw):
    runs = []
    attempt.which_backend(lambda: runs.append(1))
    expect(len(runs), 1)
    try:
        attempt.which_backend(lambda: {}["absent"])
    except KeyError:
        return
    raise Broken("an error of the call got lost", "调用抛出的异常不见了")


@check(en="Reads the graph behind later steps", zh="后面还有别的运算也能从图里读出")
def graph(attempt, draw: Draw):
    name, x = draw.choice("backend", BOTH), leaf(draw)
    out = forced(name, x, x, x)
    expect(attempt.backend_in_graph(out), name)
    expect(attempt.backend_in_graph((out * 2).sum()), name)
    expect(attempt.backend_in_graph(x * 3 + out), name)


@check(en="Without a graph it says so", zh="没有计算图就说明")
def no_graph(attempt, draw: Draw):
    try:
        attempt.backend_in_graph(draw.normal(2, 2))
    except ValueError:
        return
    raise Broken("no ValueError without a graph", "没有计算图却不抛 ValueError")


@check(en="Tells every time why a backend refuses", zh="每次都能说出后端拒绝的原因")
def reasons(attempt, draw: Draw):
    x = draw.normal(1, 2, draw.size("T", 1, 4), 4)
    sdpa, flash = F.scaled_dot_product_attention, BOTH["flash"]
    expect(attempt.why_not(lambda: sdpa(x, x, x), flash), [])
    for _ in range(2):
        said = attempt.why_not(lambda: sdpa(x, x, x, dropout_p=0.5), flash)
        if not any("dropout" in one for one in said):
            raise Broken(f"the reason is not in {said}", f"{said} 里没有原因")


@check(en="Settings are as before", zh="设置恢复原样")
def restored(attempt, draw: Draw):
    x = draw.normal(1, 1, 2, 4)
    sdpa, flags = F.scaled_dot_product_attention, torch.backends.cuda
    try:
        attempt.why_not(lambda: sdpa(x, x, x, dropout_p=0.5), BOTH["flash"])
        left = flags.math_sdp_enabled(), flags.flash_sdp_enabled()
    finally:
        flags.enable_math_sdp(True)
        flags.enable_flash_sdp(True)
        flags.enable_mem_efficient_sdp(True)
        flags.enable_cudnn_sdp(True)
    expect(left, (True, True))


CHECKS = [heard, cuda, own, several, once, graph, no_graph, reasons, restored]


def workload(attempt):
    """Return a call whose time and memory are compared with the reference's."""
    x = torch.randn(1, 4, 512, 32)
    call = lambda: F.scaled_dot_product_attention(x, x, x)  # noqa: E731
    return lambda: attempt.which_backend(call)


# --8<-- [end:checks]
