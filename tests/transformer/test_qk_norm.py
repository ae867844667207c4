"""QK-norm: F.rms_norm, F.normalize and transformers' Qwen3 as oracles, bounds, order."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from transformers import Olmo2Config, Qwen3Config
from transformers.models.olmo2.modeling_olmo2 import Olmo2Attention
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.judge import hold
from snippets.properties.kit import (
    batch_independence,
    causality,
    convexity,
    gradient_flow,
    no_input_mutated,
    permutation_equivariance,
    registered_parameters,
)
from snippets.transformer.multi_head import split_heads
from snippets.transformer.qk_norm import (
    QKNormAttention,
    attend_cosine,
    mean_entropy,
    rms_norm,
    rotate_from,
    unit_norm,
)
from tests.running import run_main


# --8<-- [start:equals-pytorch]
def test_equals_pytorch():
    """Cosine attention = F.normalize and SDPA with scale=1, in three dtypes."""
    import torch.nn.functional as F

    q, k, v = (torch.randn(2, 3, n, 16) for n in (5, 7, 7))
    gain, mask = torch.tensor([2.0, 5.0, 10.0]), torch.rand(2, 3, 5, 7) < 0.6
    mask[..., 0] = True

    def theirs(q, k, v, gain):
        q, k = F.normalize(q, dim=-1) * gain.view(-1, 1, 1), F.normalize(k, dim=-1)
        return F.scaled_dot_product_attention(q, k, v, mask, scale=1.0)

    def ours(q, k, v, gain):
        return attend_cosine(q, k, v, gain, mask)

    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        leaves = [x.to(dtype).requires_grad_() for x in (q, k, v, gain)]
        exact = [x.detach().double().requires_grad_() for x in leaves]
        results = []
        for f, inputs in ((ours, leaves), (theirs, leaves), (theirs, exact)):
            out = f(*inputs)
            results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
        for number, (one, peer, truth) in enumerate(zip(*results, strict=True)):
            factor = 1 if number == 0 else 2  # their backward rounds elsewhere
            assert largest_error(one, truth) <= error_budget(peer, truth, factor)
        error = largest_error(results[0][0], results[2][0])
        print(f"{dtype}: largest error of the output {error:.1e}")


# --8<-- [end:equals-pytorch]


# --8<-- [start:bounds]
def test_scores_are_bounded():
    """RMSNorm bounds scores by √K times the largest product of scales; it is reached."""
    q_scale, k_scale = torch.rand(2, 16, dtype=torch.float64).unbind(0)
    bound = 16**0.5 * (q_scale * k_scale).max().item()
    for size in (1.0, 1000.0):
        q, k = (size * torch.randn(2, 512, 16, dtype=torch.float64)).unbind(0)
        q[0] = k[0] = size * torch.eye(16)[(q_scale * k_scale).argmax()]
        plain = (q @ k.T).abs().max().item() / 4
        normed = (rms_norm(q, q_scale) @ rms_norm(k, k_scale).T).abs().max().item() / 4
        assert 0.999 * bound < normed <= bound
        print(f"plain scores up to {plain:.1f}, normalized {normed:.2f} ≤ {bound:.2f}")


# --8<-- [end:bounds]


# --8<-- [start:length]
def test_length_has_no_effect_and_no_gradient():
    """Longer queries change nothing, and the gradient is at right angles to them."""
    q, k, v = (torch.randn(1, 2, 5, 8, dtype=torch.float64) for _ in range(3))
    gain = torch.tensor([3.0, 8.0], dtype=torch.float64)
    q.requires_grad_()
    out = attend_cosine(q, k, v, gain)
    length = torch.rand(1, 2, 5, 1, dtype=torch.float64) * 1e3 + 1
    torch.testing.assert_close(attend_cosine(length * q, k, v, gain), out)
    (grad,) = torch.autograd.grad(out.square().sum(), q)
    along = (grad * q).sum(-1).abs().max() / grad.norm(dim=-1).max()
    assert along < 1e-9
    print(f"gradient along q: {along:.0e} of its length")


# --8<-- [end:length]


def attention_of(kind, config, **more):
    """Return a layer of transformers with random scales."""
    layer = kind(config, layer_idx=0, **more).eval()
    with torch.no_grad():
        for norm in (layer.q_norm, layer.k_norm):
            norm.weight.copy_(torch.rand(norm.weight.shape) + 0.5)
    return layer


SMALL = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 1,
    "rms_norm_eps": 1e-6,
    "attn_implementation": "eager",
}


def run_theirs(layer, x, mask, speeds):
    """Call a layer of transformers with our rotation and our mask."""
    angle = torch.arange(x.shape[1]).unsqueeze(1) * speeds
    cos, sin = angle.cos()[None].to(x), angle.sin()[None].to(x)
    bias = torch.zeros(mask.shape).masked_fill(~mask, -math.inf).to(x)
    return layer(x, position_embeddings=(cos, sin), attention_mask=bias)[0]


def copied(theirs, heads=4):
    """Return our layer with the weights of one of transformers."""
    ours = QKNormAttention(32, heads)
    for name in "qkv":
        getattr(ours, f"to_{name}").load_state_dict(
            getattr(theirs, f"{name}_proj").state_dict()
        )
    ours.to_out.load_state_dict(theirs.o_proj.state_dict())
    return ours


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_equals_qwen3(dtype):
    """A layer of Qwen3 from a small config: norm of each head, then RoPE."""
    theirs = attention_of(Qwen3Attention, Qwen3Config(head_dim=8, **SMALL))
    ours = copied(theirs)
    with torch.no_grad():
        ours.q_scale_K.copy_(theirs.q_norm.weight)
        ours.k_scale_K.copy_(theirs.k_norm.weight)
    x, mask = torch.randn(2, 6, 32), torch.ones(2, 4, 6, 6, dtype=torch.bool).tril()
    speeds = 100.0 ** -torch.linspace(0, 1, 4).repeat(2)
    rotate = partial(rotate_from, 0)
    exact = ours.double()(x.to(dtype).double(), mask, rotate)
    # theirs works in float32 inside, so the exact answer is ours in float64
    full = run_theirs(theirs.double(), x.to(dtype).double(), mask, speeds)
    torch.testing.assert_close(full, exact, rtol=0, atol=1e-6)
    peer = run_theirs(theirs.to(dtype), x.to(dtype), mask, speeds)
    one = ours.to(dtype)(x.to(dtype), mask, lambda y: rotate(y).to(dtype))
    assert largest_error(one, exact) <= error_budget(peer, exact, 2)


def test_olmo2_normalizes_all_of_d():
    """OLMo 2 differs from this layer, and by exactly that: one norm over all heads."""
    theirs = attention_of(Olmo2Attention, Olmo2Config(**SMALL))
    ours = copied(theirs)
    x, mask = torch.randn(2, 5, 32), torch.ones(2, 4, 5, 5, dtype=torch.bool)
    expected = run_theirs(theirs, x, mask, torch.zeros(8))
    assert (ours(x) - expected).abs().max() > 0.01
    q = split_heads(rms_norm(theirs.q_proj(x), theirs.q_norm.weight), 4)
    k = split_heads(rms_norm(theirs.k_proj(x), theirs.k_norm.weight), 4)
    out = F.scaled_dot_product_attention(q, k, split_heads(theirs.v_proj(x), 4))
    torch.testing.assert_close(theirs.o_proj(out.transpose(1, 2).flatten(2)), expected)


@given(
    seed=st.integers(0, 999),
    T=st.integers(1, 4),
    K=st.integers(1, 5),
    size=st.sampled_from([1e-3, 1.0, 1e4]),
)
def test_norms_equal_pytorch(seed, T, K, size):
    """Against F.rms_norm and F.normalize, from small vectors to large ones."""
    torch.manual_seed(seed)
    x, scale = size * torch.randn(T, K), torch.randn(K)
    exact = F.rms_norm(x.double(), (K,), scale.double(), 1e-6)
    allowed = error_budget(F.rms_norm(x, (K,), scale, 1e-6), exact)
    assert largest_error(rms_norm(x, scale), exact) <= allowed
    exact = F.normalize(x.double(), dim=-1)
    allowed = error_budget(F.normalize(x, dim=-1), exact)
    assert largest_error(unit_norm(x), exact) <= allowed
    wide = x.double()
    torch.testing.assert_close(
        rms_norm(wide, scale.double(), 0.25),
        F.rms_norm(wide, (K,), scale.double(), 0.25),
    )
    torch.testing.assert_close(
        unit_norm(wide, 0.25), F.normalize(wide, dim=-1, eps=0.25)
    )
    assert rms_norm(wide, scale.double()).dtype == unit_norm(wide).dtype == wide.dtype


def test_norms_of_half_precision_do_not_overflow():
    """256² is beyond float16, the norm is not."""
    x = torch.full((1, 4), 300.0, dtype=torch.float16)
    assert rms_norm(x, torch.ones(4, dtype=torch.float16)).tolist() == [[1.0] * 4]
    assert unit_norm(x).tolist() == [[0.5] * 4]
    assert unit_norm(torch.zeros(1, 4)).tolist() == [[0.0] * 4]


def test_no_weight_passes_the_ceiling():
    """1 / (1 + (S - 1) e^(-2 gain)) is the largest weight, and it is reached."""
    q = torch.tensor([[[[5.0, 0.0]]]], dtype=torch.float64)
    k = torch.tensor([[3.0, 0.0]] + [[-2.0, 0.0]] * 7, dtype=torch.float64)[None, None]
    eye = torch.eye(8, dtype=torch.float64)[None, None]
    for gain in (0.5, 1.0, 4.0):
        one = torch.tensor([gain], dtype=torch.float64)
        weight = attend_cosine(q, k, eye, one)[0, 0, 0]
        assert math.isclose(weight[0], 1 / (1 + 7 * math.exp(-2 * gain)))
        free = attend_cosine(torch.randn_like(k), torch.randn_like(k), eye, one)
        assert free.max() <= weight[0]


def test_properties():
    """What attention of any kind must satisfy, for the layer and the function."""
    layer = QKNormAttention(8, 2).double()

    def run(draw):
        T = draw.size("T", 2, 6)
        x, y = draw.normal(2, T, 8), draw.normal(1, 2, T, 4)
        causal = torch.ones(2, 2, T, T, dtype=torch.bool).tril()
        causality(lambda x: layer(x, causal), x, draw)
        batch_independence(layer, x, draw)
        permutation_equivariance(layer, x, draw)
        no_input_mutated(lambda x: layer(x, causal), x)
        gain = draw.normal(2).double()
        convexity(lambda v: attend_cosine(y, y, v, gain), draw.normal(1, 2, T, 3), draw)
        gradient_flow(lambda q, g: attend_cosine(q, y, y, g), y + 1, gain)

    hold(run)
    gradient_flow(layer, torch.randn(2, 5, 8).double())
    registered_parameters(layer)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_hidden_positions_may_hold_anything(poison):
    """Blind queries give zeros; outputs and gradients do not notice the padding."""
    q, k, v = torch.randn(3, 1, 2, 5, 4, dtype=torch.float64).unbind(0)
    gain = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
    mask = torch.ones(1, 2, 5, 5, dtype=torch.bool)
    mask[..., 3:] = mask[..., 4, :] = False
    short = attend_cosine(q[:, :, :4], k[:, :, :3], v[:, :, :3], gain)
    q, k, v = q.clone(), k.clone(), v.clone()
    q[:, :, 4] = k[:, :, 3:] = v[:, :, 3:] = poison
    leaves = [q.requires_grad_(), k.requires_grad_(), v.requires_grad_(), gain]
    out = attend_cosine(*leaves, mask)
    torch.testing.assert_close(out[:, :, :4], short)
    assert (out[:, :, 4] == 0).all()
    for grad in torch.autograd.grad(out.square().sum(), leaves):
        assert grad.isfinite().all()
    layer, x = QKNormAttention(8, 2).double(), torch.randn(1, 5, 8).double()
    mask = torch.ones(1, 2, 5, 5, dtype=torch.bool)
    mask[..., 3:] = mask[..., 3:, :] = False
    short = layer(x[:, :3])
    x[:, 3:] = poison
    out = layer(x.requires_grad_(), mask)
    torch.testing.assert_close(out[:, :3], short)
    assert (out[:, 3:] == 0).all()
    scales = [layer.q_scale_K, layer.k_scale_K]
    for grad in torch.autograd.grad(out.square().sum(), [x, *scales]):
        assert grad.isfinite().all()


def test_one_head_and_one_token():
    """The smallest layer is F.rms_norm and SDPA as well."""
    layer, x = QKNormAttention(4, 1).double(), torch.randn(2, 1, 4).double()
    torch.testing.assert_close(layer(x), layer.to_out(layer.to_v(x)))
    x = torch.randn(2, 3, 4).double()
    q, k = (F.rms_norm(to(x), (4,), eps=1e-6) for to in (layer.to_q, layer.to_k))
    out = F.scaled_dot_product_attention(q, k, layer.to_v(x))
    torch.testing.assert_close(layer(x), layer.to_out(out))


def test_huge_inputs_and_strides():
    """Vectors of length 1e4 are as good as any; views are fine."""
    layer, x = QKNormAttention(8, 2), torch.randn(2, 5, 8)
    with torch.no_grad():
        before = layer(x)
        layer.to_q.weight *= 1e4
        layer.to_k.weight *= 1e4
        torch.testing.assert_close(layer(x), before, rtol=1e-3, atol=1e-4)
    y = torch.randn(2, 5, 3, 8).transpose(1, 2)
    gain = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(
        attend_cosine(y, y, y, gain), attend_cosine(*[y.contiguous()] * 3, gain)
    )


def test_gradcheck():
    """Gradients agree with finite differences."""
    layer = QKNormAttention(4, 2).double()
    assert torch.autograd.gradcheck(
        layer, torch.randn(1, 3, 4).double().requires_grad_()
    )
    q, k, v = (
        torch.randn(1, 2, n, 3, dtype=torch.float64, requires_grad=True)
        for n in (3, 2, 2)
    )
    gain = torch.tensor([1.0, 4.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(attend_cosine, (q, k, v, gain))


def test_rotate_from():
    """Positions turn pairs by complex numbers, and scores depend on distance alone."""
    x = torch.randn(1, 1, 6, 8, dtype=torch.float64)
    pairs = torch.complex(x[..., :4], x[..., 4:])
    speed = 100.0 ** -torch.linspace(0, 1, 4)
    angle = (torch.arange(6) + 3).unsqueeze(1) * speed
    turned = pairs * torch.polar(torch.ones_like(angle), angle)
    expected = torch.cat([turned.real, turned.imag], -1)
    torch.testing.assert_close(rotate_from(3, x), expected, rtol=1e-5, atol=1e-5)


def test_mean_entropy():
    """Equal scores give log S; one key far ahead gives 0."""
    q = torch.ones(1, 1, 2, 4)
    assert math.isclose(mean_entropy(q, q), math.log(2), rel_tol=1e-6)
    k = torch.cat([q[:, :, :1] * 100, q[:, :, 1:] * -100], 2)
    assert mean_entropy(q, k) < 1e-6
    x = torch.randn(2, 3, 5, 16)
    weight = F.scaled_dot_product_attention(x, x, torch.eye(5).expand(2, 3, 5, 5))
    expected = -(weight * weight.log()).sum(-1).mean().item()
    assert math.isclose(mean_entropy(x, x), expected, rel_tol=1e-4)


def test_bad_input_is_named():
    """What came and what was expected."""
    for heads in (3, 0):
        with pytest.raises(
            ValueError,
            match=f"^heads is {heads}, model_size is 8: heads must divide it$",
        ):
            QKNormAttention(8, heads)
    layer, x = QKNormAttention(8, 2), torch.randn(2, 3, 8)
    for bad in (x[0], x[..., :7]):
        with pytest.raises(ValueError, match=r", expected \(batch, positions, 8\)$"):
            layer(bad)
    with pytest.raises(ValueError, match=r"^x has shape \(2, 3, 7\), expected"):
        layer(x[..., :7])
    with pytest.raises(
        ValueError, match=r"^mask has shape \(2, 3, 3\), expected \(2, 2,"
    ):
        layer(x, torch.ones(2, 3, 3, dtype=torch.bool))
    y = torch.randn(1, 2, 3, 4)
    with pytest.raises(
        ValueError,
        match=r"^gain has shape \(3,\), query has 2 heads: one number for each is expected$",
    ):
        attend_cosine(y, y, y, torch.ones(3))
    with pytest.raises(ValueError, match=r"^gain has shape \(\), query"):
        attend_cosine(y, y, y, torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"^key has size 3, query has size 4"):
        attend_cosine(y, y[..., :3], y, torch.ones(2))


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.transformer.qk_norm").output
    for line in (
        "q and k times   1: 3.69 plain, 3.70 normalized",
        "q and k times   3: 0.50 plain, 3.70 normalized",
        "q and k times 100: 0.00 plain, 3.70 normalized",
        "|score| ≤ 0.125, of 1024 keys one gets ≤ 0.0013",
        "|score| ≤ 1.000, of 1024 keys one gets ≤ 0.0072",
        "|score| ≤ 8.000, of 1024 keys one gets ≤ 0.9999",
        "T = 1024:  1610.6 MFLOPs",
        "gain 10       : outputs differ from the mean of all values by 0.2",
        "no gain, 1/√K : outputs differ from the mean of all values by 0.002",
        "norm over each head: heads 1 to 3 are scaled by 1.00",
        "norm over all of D: heads 1 to 3 are scaled by 0.20",
    ):
        assert line in out
    moves = [float(line.split()[-1]) for line in out.splitlines() if "move" in line]
    assert max(moves[:3]) < 1e-3 < 1 < moves[3]
