"""SDPA backends: operators that CUDA has run on meta tensors; results agree."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import _get_current_dispatch_mode

from snippets.efficient.sdpa_backends import (
    NODES,
    OPERATORS,
    backend_in_graph,
    qkv,
    which_backend,
    why_not,
)
from snippets.properties.error_budget import error_budget, largest_error
from tests.running import run_main

sdpa = F.scaled_dot_product_attention
FLASH, MATH = SDPBackend.FLASH_ATTENTION, SDPBackend.MATH


def cpu_only():
    """Skip where the default device is a GPU: other rules hold there."""
    if torch.get_default_device().type != "cpu":
        pytest.skip("the rules of the CPU")


# --8<-- [start:agree]
def test_backends_agree():
    """Outputs and gradients of flash are as exact as those of math, in three dtypes."""
    mask = torch.ones(70, 90, dtype=torch.bool).tril(20)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        leaves = qkv(T=70, S=90, K=32, V=32, dtype=dtype, requires_grad=True)
        results = []
        for backend, given in (
            (SDPBackend.FLASH_ATTENTION, leaves),
            (SDPBackend.MATH, leaves),
            (SDPBackend.MATH, [x.detach().double().requires_grad_() for x in leaves]),
        ):
            with sdpa_kernel(backend):
                out = F.scaled_dot_product_attention(*given, mask)
            grads = torch.autograd.grad(out.square().sum(), given)
            results.append((out, *grads))
        for flash, peer, exact in zip(*results, strict=True):
            error, allowed = largest_error(flash, exact), error_budget(peer, exact, 2.0)
            assert error <= allowed
        same = results[0][0].equal(results[1][0])
        print(f"{dtype}: within the budget, bit for bit the same: {same}")


# --8<-- [end:agree]


# --8<-- [start:cuda-names]
def test_knows_the_operators_of_cuda():
    """Those operators run on meta tensors, too: shapes without numbers, no GPU needed."""
    x = torch.randn(1, 2, 8, 16, device="meta", dtype=torch.float16, requires_grad=True)
    aten = torch.ops.aten
    for expected, call in (
        ("flash", lambda: aten._scaled_dot_product_flash_attention(x, x, x)),
        (
            "efficient",
            lambda: aten._scaled_dot_product_efficient_attention(x, x, x, None, True),
        ),
        (
            "cudnn",
            lambda: aten._scaled_dot_product_cudnn_attention(x, x, x, None, True),
        ),
    ):
        assert which_backend(call) == backend_in_graph(call()[0]) == expected
        print(expected, "-", call()[0].grad_fn.name())


# --8<-- [end:cuda-names]


def test_every_name_exists():
    """PyTorch has each operator, and the graph's names are those of the operators."""
    assert sorted(OPERATORS.values()) == sorted(NODES.values())
    for name in OPERATORS:
        assert hasattr(torch.ops.aten, name)
    x = torch.randn(1, 2, 8, 16, device="meta", requires_grad=True)
    out = torch.ops.aten._scaled_dot_product_fused_attention_overrideable(x, x, x)[0]
    assert backend_in_graph(out) == "overrideable"
    given = torch.ops.aten._scaled_dot_product_fused_attention_overrideable
    assert which_backend(lambda: given(x, x, x)) == "overrideable"


def test_each_forced_backend_is_heard():
    """Listening and reading the graph agree with what was forced, here and in a module."""
    for backend, name in ((FLASH, "flash"), (MATH, "math")):
        given = qkv(requires_grad=True, dtype=torch.float32)
        cpu_only()
        with sdpa_kernel(backend):
            assert which_backend(lambda given=given: sdpa(*given)) == name
            assert backend_in_graph(sdpa(*given)) == name
            layer, x = (
                nn.MultiheadAttention(8, 2, batch_first=True),
                torch.randn(1, 3, 8),
            )
            ask = lambda layer=layer, x=x: layer(x, x, x, need_weights=False)[0]  # noqa: E731
            assert which_backend(ask) == name
            assert backend_in_graph(ask() * 2 + 1) == name


def test_what_is_no_sdpa_is_none():
    """A softmax of one's own, and no attention at all."""
    q, k, v = qkv(requires_grad=True)
    assert which_backend(lambda: (q @ k.mT).softmax(-1) @ v) == "none"
    assert backend_in_graph((q @ k.mT).softmax(-1) @ v) == "none"
    assert which_backend(lambda: None) == "none"


def test_several_are_named_in_order():
    """Each once, by first use; in the graph the nearest comes first."""
    cpu_only()
    q, k, v = qkv(requires_grad=True)

    def both():
        with sdpa_kernel(MATH):
            out = sdpa(q, k, v)
        for _ in range(2):
            out = sdpa(out, k, v)
        return out

    assert which_backend(both) == "math, flash"
    assert backend_in_graph(both()) == "flash, math"


def test_the_call_runs_once_and_leaves_nothing_behind():
    """One run; errors pass through; the mode is gone afterwards."""
    runs = []
    which_backend(lambda: runs.append(1))
    assert runs == [1]
    with pytest.raises(ZeroDivisionError):
        which_backend(lambda: 1 / 0)
    assert _get_current_dispatch_mode() is None
    x = torch.randn(2, requires_grad=True)
    which_backend(lambda: x.square().sum().backward())
    assert x.grad is not None


def test_no_graph_is_named():
    """Without gradients there is nothing to read."""
    with pytest.raises(
        ValueError,
        match=r"^the result has no grad_fn: run with gradients, or listen$",
    ):
        backend_in_graph(sdpa(*qkv()))


def test_reasons_are_those_of_pytorch():
    """Empty where it runs; else its warnings and the error, the settings put back."""
    cpu_only()
    assert why_not(lambda: sdpa(*qkv()), FLASH) == []
    said = why_not(lambda: sdpa(*qkv(), dropout_p=0.5), FLASH)
    assert said == [
        "Flash attention kernel not used because:",
        "Both fused kernels do not support non-zero dropout.",
        "No available kernel",
    ]
    said = why_not(lambda: sdpa(*qkv(V=8)), FLASH)
    assert said[1].startswith("Flash attention requires q,k,v to have the same last")
    assert "(Triggered" not in said[1]
    assert torch.backends.cuda.math_sdp_enabled()
    assert which_backend(lambda: sdpa(*qkv(), dropout_p=0.5)) == "math"


def test_shapes_of_the_helper():
    """4 query heads, G key/value heads, options passed on."""
    q, k, v = qkv(T=2, S=3, K=5, V=7, G=2, dtype=torch.float64, requires_grad=True)
    assert (q.shape, k.shape, v.shape) == ((2, 4, 2, 5), (2, 2, 3, 5), (2, 2, 3, 7))
    assert q.dtype == torch.float64
    assert v.requires_grad
    assert [tuple(x.shape) for x in qkv()] == [(2, 4, 6, 16)] * 3


def test_blind_rows_agree():
    """A query without keys gets zeros from both, causal alignment is the same."""
    cpu_only()
    q, k, v = qkv(S=9)
    mask = torch.ones(6, 9, dtype=torch.bool)
    mask[2] = False
    for options in ({"attn_mask": mask}, {"is_causal": True}):
        outs = []
        for backend in (FLASH, MATH):
            with sdpa_kernel(backend):
                outs.append(sdpa(q, k, v, **options))
        torch.testing.assert_close(*outs)
    with sdpa_kernel(FLASH):
        assert not sdpa(q, k, v, mask)[:, :, 2].any()


def test_a_list_falls_back_in_silence():
    """With math allowed, a refused flash is no warning and no error."""
    cpu_only()
    with warnings.catch_warnings(), sdpa_kernel([FLASH, MATH]):
        warnings.simplefilter("error")
        assert which_backend(lambda: sdpa(*qkv(), dropout_p=0.5)) == "math"


CUDA = [
    ("float64", {"dtype": torch.float64}, {}, {"math"}),
    ("float32", {"dtype": torch.float32}, {}, {"efficient"}),
    ("float16", {"dtype": torch.float16}, {}, {"flash", "cudnn"}),
    ("causal, T ≠ S", {"dtype": torch.float16, "S": 9}, {"is_causal": True},
     {"efficient", "cudnn", "math"}),
    ("3 axes", {"dtype": torch.float16}, {"axes": 3}, {"math"}),
]  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "made", "options", "allowed"), CUDA)
def test_rules_of_cuda(name, made, options, allowed):
    """What the page repeats from PyTorch's source, asked of a GPU."""
    options = dict(options)
    given = qkv(**made, device="cuda")
    if options.pop("axes", 4) == 3:
        given = [x[0] for x in given]
    assert which_backend(lambda: sdpa(*given, **options)) in allowed


@pytest.mark.gpu
def test_a_mask_rules_out_flash_on_cuda():
    """Another backend takes it, and says the same as math."""
    given = qkv(T=64, S=64, dtype=torch.float16, device="cuda")
    mask = torch.ones(64, 64, dtype=torch.bool, device="cuda").tril()
    assert which_backend(lambda: sdpa(*given, mask)) in {"efficient", "cudnn", "math"}
    said = why_not(lambda: sdpa(*given, mask), FLASH)
    assert any("attn_mask" in one for one in said)
    with sdpa_kernel(MATH):
        exact = sdpa(*[x.double() for x in given], mask)
        peer = sdpa(*given, mask)
    assert largest_error(sdpa(*given, mask), exact) <= error_budget(peer, exact, 2.0)


def test_demonstration():
    """The page's lines, on the CPU."""
    cpu_only()
    out = run_main("snippets.efficient.sdpa_backends").output
    assert "dispatched: flash" in out
    assert "flash - ScaledDotProductFlashAttentionForCpuBackward0" in out
    for name, backend in {
        "plain": "flash",
        "float64": "flash",
        "bfloat16": "flash",
        "with gradients": "flash",
        "is_causal": "flash",
        "is_causal, T ≠ S": "flash",
        "boolean mask": "flash",
        "float mask": "flash",
        "enable_gqa": "flash",
        "learned float mask": "math",
        "mask of 3 axes": "math",
        "dropout": "math",
        "V ≠ K": "math",
        "3 axes": "math",
    }.items():
        assert f"cpu, {name}: {backend}\n" in out
    assert "dropout: Both fused kernels do not support non-zero dropout.\n" in out
    assert "no dropout: largest tensor 0.5 MiB, 0 warnings" in out
    assert "dropout: largest tensor 32.0 MiB, 0 warnings" in out
    assert "learned bias: math" in out
    assert "frozen bias: flash" in out
    assert "No viable backend for scaled_dot_product_attention was found." in out
