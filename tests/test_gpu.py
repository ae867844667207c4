"""What only a GPU can show: our functions are as exact there as PyTorch's own.

The logic also runs on the CPU, so that it cannot rot where there is no GPU; only the
tests marked `gpu` say anything about one. `pytest --device cuda` runs all others there.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from snippets.decoding.split_kv import split_attend
from snippets.efficient.chunked import chunked_attention
from snippets.efficient.flash_backward import flash_attention
from snippets.efficient.flash_forward import flash_forward
from snippets.foundations.scaled_dot_product import attend
from snippets.properties.error_budget import error_budget, largest_error

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def inputs(device, dtype):
    """Return q, k, v and a causal mask: 130 keys, a length that no tile divides."""
    generator = torch.Generator("cpu").manual_seed(0)
    shape = (2, 3, 130, 64)
    q_BHTK, k_BHSK, v_BHSV = (
        torch.randn(shape, generator=generator, device="cpu").to(device, dtype)
        for _ in range(3)
    )
    mask_TS = torch.ones(130, 130, dtype=torch.bool, device=device).tril()
    return q_BHTK, k_BHSK, v_BHSV, mask_TS.expand(2, 3, 130, 130)


def plainly(q_BHTK, k_BHSK, v_BHSV, mask_BHTS):
    """Return attention by PyTorch's operators, every step in the dtype of the input."""
    score_BHTS = q_BHTK @ k_BHSK.mT / math.sqrt(q_BHTK.shape[-1])
    return score_BHTS.masked_fill(~mask_BHTS, -math.inf).softmax(-1) @ v_BHSV


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_attend_is_as_exact_as_pytorch_s_operators(device, dtype):
    q_BHTK, k_BHSK, v_BHSV, mask_BHTS = inputs(device, dtype)
    exact_BHTV = F.scaled_dot_product_attention(
        q_BHTK.double(), k_BHSK.double(), v_BHSV.double(), attn_mask=mask_BHTS
    )
    peer_BHTV = plainly(q_BHTK, k_BHSK, v_BHSV, mask_BHTS)
    error = largest_error(attend(q_BHTK, k_BHSK, v_BHSV, mask_BHTS), exact_BHTV)
    assert error <= error_budget(peer_BHTV, exact_BHTV, 2.0)


WAYS = {
    "chunked": lambda q, k, v, mask: chunked_attention(q, k, v, mask, 50, 48),
    "flash": lambda q, k, v, mask: flash_forward(q, k, v, causal=True)[0],
    "split": lambda q, k, v, mask: split_attend(q, k, v, 3, mask),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_another_order_of_computing_is_as_exact(way, device, dtype):
    q_BHTK, k_BHSK, v_BHSV, mask_BHTS = inputs(device, dtype)
    exact_BHTV = F.scaled_dot_product_attention(
        q_BHTK.double(), k_BHSK.double(), v_BHSV.double(), attn_mask=mask_BHTS
    )
    peer_BHTV = plainly(q_BHTK, k_BHSK, v_BHSV, mask_BHTS)
    error = largest_error(WAYS[way](q_BHTK, k_BHSK, v_BHSV, mask_BHTS), exact_BHTV)
    assert error <= error_budget(peer_BHTV, exact_BHTV, 2.0)


@pytest.mark.parametrize("device", DEVICES)
def test_the_flash_backward_is_as_exact_as_sdpa_s(device):
    q_BHTK, k_BHSK, v_BHSV, _ = inputs(device, torch.float32)
    results = []
    for function, dtype in (
        (lambda q, k, v: flash_attention(q, k, v, causal=True), torch.float32),
        (lambda *x: F.scaled_dot_product_attention(*x, is_causal=True), torch.float32),
        (lambda *x: F.scaled_dot_product_attention(*x, is_causal=True), torch.float64),
    ):
        leaves = [
            x.detach().to(dtype).requires_grad_() for x in (q_BHTK, k_BHSK, v_BHSV)
        ]
        out_BHTV = function(*leaves)
        results.append(torch.autograd.grad(out_BHTV.square().sum(), leaves))
    for ours_any, peer_any, exact_any in zip(*results, strict=True):
        allowed = error_budget(peer_any, exact_any, 2.0)
        assert largest_error(ours_any, exact_any) <= allowed


@pytest.mark.parametrize("device", DEVICES)
def test_a_future_of_nan_changes_nothing(device):
    q_BHTK, k_BHSK, v_BHSV, mask_BHTS = inputs(device, torch.float32)
    whole_BHTV = attend(q_BHTK, k_BHSK, v_BHSV, mask_BHTS)
    k_BHSK[:, :, 100:], v_BHSV[:, :, 100:] = math.nan, math.nan
    cut_BHTV = attend(q_BHTK, k_BHSK, v_BHSV, mask_BHTS)
    kept_BHTV, expected_BHTV = cut_BHTV[:, :, :100], whole_BHTV[:, :, :100]
    assert largest_error(kept_BHTV, expected_BHTV) <= error_budget(
        expected_BHTV, expected_BHTV.double()
    )
