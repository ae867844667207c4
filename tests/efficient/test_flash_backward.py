"""FlashAttention backward: gradients of SDPA, finite differences, what is kept, work."""

import math

import pytest
import torch
import torch.nn.functional as F

from snippets.efficient.flash_backward import (
    flash_attention,
    flash_backward,
    tile_gradients,
)
from snippets.efficient.flash_forward import flash_forward
from snippets.properties.cost import count_flops, exponent, largest_bytes, peak_bytes
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import agreement
from tests.running import run_main


# --8<-- [start:equals-sdpa]
def test_equals_sdpa():
    """dQ, dK and dV equal those of PyTorch, in three dtypes, with and without a mask."""

    def gradients(f, dtype, inputs):
        leaves = [x.to(dtype).requires_grad_() for x in inputs]
        return torch.autograd.grad(f(*leaves), leaves, upstream.to(dtype))

    drawn = [torch.randn(2, 3, 70, 16).double() for _ in range(4)]
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        *inputs, upstream = (x.to(dtype).double() for x in drawn)
        for causal in (False, True):
            ours = gradients(
                lambda q, k, v, c=causal: flash_attention(q, k, v, c, 32, 24),
                dtype, inputs,
            )  # fmt: skip
            theirs, exact = (
                gradients(
                    lambda *qkv, c=causal: F.scaled_dot_product_attention(
                        *qkv, is_causal=c
                    ),
                    kind, inputs,
                )
                for kind in (dtype, torch.float64)
            )  # fmt: skip
            for a, b, c in zip(ours, theirs, exact, strict=True):
                error, allowed = largest_error(a, c), error_budget(b, c, factor=2)
                assert error <= allowed
        print(f"{dtype}: error of dV {error:.1e}, allowed {allowed:.1e}")


# --8<-- [end:equals-sdpa]


# --8<-- [start:gradcheck]
def test_gradcheck():
    """Finite differences agree, at lengths that tiles do not divide."""
    for T, S, causal in ((3, 5, True), (5, 3, True), (4, 5, False), (1, 1, True)):
        q, k, v = (torch.randn(1, 2, n, 3).double() for n in (T, S, S))
        leaves = [x.requires_grad_() for x in (q, k, v)]
        f = lambda q, k, v, c=causal: flash_attention(q, k, v, c, 2, 2)  # noqa: E731
        assert torch.autograd.gradcheck(f, leaves)
        print(f"T = {T}, S = {S}, causal = {causal}: agrees with finite differences")


# --8<-- [end:gradcheck]


# --8<-- [start:dot]
def test_why_the_dot():
    """rowsum(dO ∘ O) = rowsum(P ∘ dP), so that the rows of dS sum to zero."""
    q, k, v, dO = (torch.randn(1, 1, n, 4).double() for n in (6, 9, 9, 6))
    P = torch.softmax(q @ k.mT / 2, dim=-1)
    out, dP = P @ v, dO @ v.mT
    D = (dO * out).sum(-1, keepdim=True)
    torch.testing.assert_close(D, (P * dP).sum(-1, keepdim=True))
    dS = P * (dP - D)
    assert dS.sum(-1).abs().max() < 1e-14
    print(f"with D rows of dS sum to 0, without to {(P * dP).sum(-1).abs().max():.2f}")


# --8<-- [end:dot]


def test_any_tiles():
    """Tiles, lengths and masks as drawn: gradients of the formula in float64."""

    def property_(draw):
        T, S = draw.size("T", 1, 7), draw.size("S", 1, 7)
        q, k, v = (
            draw.normal(1, 2, T, 3),
            draw.normal(1, 2, S, 3),
            draw.normal(1, 2, S, 2),
        )
        causal = draw.choice("causal", [False, True])
        tile = draw.size("rows", 1, 8), draw.size("columns", 1, 8)
        seen = torch.ones(T, S, dtype=torch.bool)
        seen = seen.tril(S - T) if causal else seen
        leaves = [x.requires_grad_() for x in (q, k, v)]
        out = flash_attention(*leaves, causal, *tile)
        score = (q @ k.mT / math.sqrt(3)).masked_fill(~seen, -math.inf)
        score = score.masked_fill(~seen.any(1, keepdim=True), 0.0)
        weight = torch.softmax(score, 3) * seen.any(1, keepdim=True)
        upstream = draw.normal(*out.shape)
        for name, a, b in zip(
            ("dQ", "dK", "dV"),
            torch.autograd.grad(out, leaves, upstream),
            torch.autograd.grad(weight @ v, leaves, upstream),
            strict=True,
        ):
            agreement(a, b, name)

    hold(property_, examples=60)


def test_keeps_no_weights():
    """Inputs, output and LSE are kept: linear in T."""
    for T in (64, 128):
        q, k = torch.randn(1, 2, T, 8, requires_grad=True), torch.randn(1, 2, 32, 8)
        kept = []

        def keep(one, kept=kept):
            kept.append(tuple(one.shape))
            return one

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
            flash_attention(q, k, k)
        assert sorted(kept) == sorted(
            [(1, 2, T, 8), (1, 2, 32, 8), (1, 2, 32, 8), (1, 2, T, 8), (1, 2, T)]
        )


def test_memory_is_linear():
    """No T × S tensor in the backward either."""
    lengths, peaks = [128, 256], []
    for length in lengths:
        x = torch.randn(1, 1, length, 16, requires_grad=True)
        out = flash_attention(x, x, x, False, 32, 32)
        largest = largest_bytes(lambda out=out: out.sum().backward())
        assert largest <= max(32 * 32, length * 16) * 4
        peaks.append(
            peak_bytes(
                lambda x=x: flash_attention(x, x, x, False, 32, 32).sum().backward()
            )
        )
    assert exponent(lengths, peaks) < 1.05


def test_tiles_of_64_unless_told():
    """The default tile is 64 × 64, forward and backward."""
    x = torch.randn(1, 1, 128, 2, requires_grad=True)
    out = flash_attention(x, x, x)
    assert largest_bytes(lambda: flash_attention(x, x, x)) == 64 * 64 * 4
    assert largest_bytes(lambda: out.sum().backward()) == 64 * 64 * 4
    saved = (x, x, x, *flash_forward(x, x, x))
    with torch.no_grad():
        assert largest_bytes(lambda: flash_backward(out, *saved)) == 64 * 64 * 4


def test_five_products():
    """The backward takes 5 products where the forward takes 2; causal skips tiles."""
    x = torch.randn(1, 2, 64, 8, requires_grad=True)
    unit = 2 * 2 * 64 * 64 * 8
    for causal, tiles in ((False, 16), (True, 10)):
        out = flash_attention(x, x, x, causal, 16, 16)
        flops = count_flops(lambda out=out: out.sum().backward())
        assert flops == 5 * unit * tiles // 16


def test_nan_in_the_future():
    """Gradients of the past stay finite when later keys and values are NaN."""
    for dirt in (math.nan, math.inf):
        q, k, v = (torch.randn(1, 1, 6, 4).double() for _ in range(3))
        upstream = torch.randn(1, 1, 6, 4).double()
        upstream[:, :, 4:] = 0

        def run(q, k, v, upstream=upstream):
            leaves = [x.clone().requires_grad_() for x in (q, k, v)]
            out = flash_attention(*leaves, True, 4, 3)
            return torch.autograd.grad(out, leaves, upstream)

        clean = run(q, k, v)
        k[:, :, 4:] = v[:, :, 4:] = dirt
        dirty = run(q, k, v)
        torch.testing.assert_close(dirty[0][:, :, :4], clean[0][:, :, :4])


def test_blind_queries_may_hold_nan():
    """With more queries than keys the first see nothing, and their NaN reaches nothing."""
    q, k = torch.randn(1, 1, 7, 4).double(), torch.randn(1, 1, 3, 4).double()
    q[:, :, :4] = math.nan
    leaves = [q.requires_grad_(), k.requires_grad_()]
    out = flash_attention(leaves[0], leaves[1], leaves[1], True, 3, 2)
    dq, dk = torch.autograd.grad(out.square().sum(), leaves)
    assert dq[:, :, :4].eq(0).all()
    assert dq.isfinite().all()
    assert dk.isfinite().all()
    upstream = torch.ones_like(out)
    upstream[:, :, :4] = math.nan
    out = flash_attention(leaves[0], leaves[1], leaves[1], True, 3, 2)
    for grad in torch.autograd.grad(out, leaves, upstream):
        assert grad.isfinite().all()
    short = q[:, :, 4:].detach().requires_grad_()
    out = flash_attention(short, leaves[1], leaves[1], True)
    torch.testing.assert_close(
        torch.autograd.grad(out.square().sum(), leaves[1])[0], dk
    )


def test_huge_scores():
    """Scores of 1e4: the weights are one-hot, gradients of q and k zero, all finite."""
    q, k = torch.full((1, 1, 2, 4), 100.0), torch.zeros(1, 1, 3, 4)
    k[:, :, 1] = 100.0
    leaves = [x.requires_grad_() for x in (q, k, torch.randn(1, 1, 3, 2))]
    out = flash_attention(*leaves, rows=1, columns=2)
    dq, dk, dv = torch.autograd.grad(out.sum(), leaves)
    assert dq.eq(0).all()
    assert dk.eq(0).all()
    assert dv[0, 0].tolist() == [[0, 0], [2, 2], [0, 0]]


def test_tile_by_hand():
    """One query, one key: all weight on it, nothing for q and k unless D is off."""
    one = torch.ones(1, 1, 1, 1)
    seen = torch.zeros(1, 1, dtype=torch.bool)
    # score 2 · 3 = 6, LSE 6, weight 1; dP = 5 · 7 = 35, D = 31: dS = 4
    dq, dk, dv = tile_gradients(
        2 * one, 3 * one, 7 * one, 5 * one, 6 * one, 31 * one, seen
    )
    assert (dq.item(), dk.item(), dv.item()) == (12, 8, 5)
    hidden = tile_gradients(
        2 * one, 3 * one, 7 * one, 5 * one, 6 * one, 31 * one, ~seen
    )
    assert [x.item() for x in hidden] == [0, 0, 0]


def test_dtypes_and_layouts():
    """Gradients have the inputs' dtype; inputs and dO may be views."""
    x = torch.randn(2, 9, 3, 4).transpose(1, 2).requires_grad_()
    grad = torch.randn(2, 9, 3, 4).transpose(1, 2)
    ours = torch.autograd.grad(flash_attention(x, x, x, True, 4, 4), x, grad)[0]
    whole = F.scaled_dot_product_attention(x, x, x, is_causal=True)
    torch.testing.assert_close(ours, torch.autograd.grad(whole, x, grad)[0])
    summed = torch.autograd.grad(flash_attention(x, x, x).sum(), x)[0]  # strides 0
    whole = F.scaled_dot_product_attention(x, x, x).sum()
    torch.testing.assert_close(summed, torch.autograd.grad(whole, x)[0])
    half = [torch.randn(1, 1, 3, 4).half() for _ in range(3)]
    out, lse = flash_forward(*half)
    grads = flash_backward(out, *half, out, lse)
    assert [one.dtype for one in grads] == [torch.float16] * 3


def test_sums_are_wide():
    """The values' gradient may pass what float16 can hold on its way."""
    q, k, v = (torch.zeros(1, 1, n, 1).half() for n in (4000, 1, 1))
    v.requires_grad_()
    upstream = torch.full((1, 1, 4000, 1), 40.0).half()
    upstream[:, :, 2000:] = -40
    out = flash_attention(q, k, v, rows=1000)
    assert torch.autograd.grad(out, v, upstream)[0].item() == 0


def test_no_second_derivative():
    """Differentiating twice is refused, not answered wrongly."""
    x = torch.randn(1, 1, 3, 4).double().requires_grad_()
    (grad,) = torch.autograd.grad(
        flash_attention(x, x, x).square().sum(), x, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_bad_input_is_named():
    """As in the forward."""
    x = torch.randn(1, 1, 3, 4)
    with pytest.raises(ValueError, match=r"^rows is 0, expected at least 1$"):
        flash_attention(x, x, x, rows=0)
    with pytest.raises(ValueError, match=r"^columns is 0, expected at least 1$"):
        flash_attention(x, x, x, columns=0)
    with pytest.raises(ValueError, match="value has positions 2, key has positions 3"):
        flash_attention(x, x, x[:, :, :2])


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.efficient.flash_backward").output
    for name in ("dQ", "dK", "dV"):
        line = next(x for x in out.splitlines() if x.startswith(f"{name}: differs"))
        assert float(line.split()[-1]) < 2e-6
    assert "attend keeps 4352 KiB" in out
    assert "tiles_without_care keeps 11944 KiB" in out
    assert "flash_attention keeps 260 KiB" in out
    assert "attend: 2 products forward, 4 back" in out
    assert "flash_attention: 2 products forward, 5 back" in out
    assert "at 512: flash 0.38 MiB, plain 3.13 MiB" in out
    for said in ("dQ off by 1.9e+00", "dK off by 3.2e+00", "dV off by 2.3e+00"):
        assert f"backward without the mask: {said}" in out
    assert "dO read by strides: D is off by 0.0" in out
    assert "dO read as if whole: D is off by 3.1" in out
    assert "incorrect number of gradients (expected 6, got 5)" in out
