import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snippets.foundations.scaled_dot_product import attend
from snippets.properties.error_budget import error_budget, largest_error
from snippets.vision.non_local import NonLocal, layers_to_cross
from tests.running import run_main


def trained(model_size, inner_size=None, dtype=torch.float64):
    """Return a block whose last layer is no longer zero."""
    block = NonLocal(model_size, inner_size).to(dtype)
    nn.init.normal_(block.last.weight)
    return block


# --8<-- [start:equals-sdpa]
def exact_and_peer(block, x_BDXY):
    """PyTorch's attention with scale=1.0 in float64 and in the dtype of x."""
    answers = []
    for dtype in (torch.float64, x_BDXY.dtype):
        q, k, v = (projected.to(dtype) for projected in block.project(x_BDXY))
        answers.append(nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0))
    return answers


def test_equals_sdpa_with_scale_one():
    """The heart of the block is PyTorch's attention with scale=1.0."""
    block = NonLocal(32)
    x_BDXY = torch.randn(2, 32, 14, 9)
    exact, peer = exact_and_peer(block, x_BDXY)
    allowed = error_budget(peer, exact)
    q_BPK, k_BPK, v_BPK = block.project(x_BDXY)
    error = largest_error(block.weight(x_BDXY) @ v_BPK, exact)
    print(f"largest error {error:.1e}, allowed {allowed:.1e}")
    assert error <= allowed
    usual = nn.functional.scaled_dot_product_attention(q_BPK, k_BPK, v_BPK)
    print(f"with the usual 1/sqrt(K): off by {largest_error(usual, exact):.1e}")
    assert largest_error(usual, exact) > 100 * allowed


# --8<-- [end:equals-sdpa]


def test_equals_attend_with_longer_queries():
    """`attend` divides by sqrt(K); queries longer by sqrt(K) undo it."""
    block = NonLocal(32)
    x_BDXY = torch.randn(2, 32, 14, 9)
    exact, peer = exact_and_peer(block, x_BDXY)
    q_B1PK, k_B1PK, v_B1PK = (part.unsqueeze(1) for part in block.project(x_BDXY))
    out_B1PK = attend(q_B1PK * math.sqrt(q_B1PK.shape[-1]), k_B1PK, v_B1PK)
    error, allowed = largest_error(out_B1PK[:, 0], exact), error_budget(peer, exact, 2)
    print(f"largest error {error:.1e}, allowed {allowed:.1e}")
    assert error <= allowed


# --8<-- [start:reach]
def test_opposite_corners_meet_in_one_block():
    """A change in one corner changes the output in the other."""
    block = NonLocal(8).double()
    nn.init.normal_(block.last.weight)  # as after training
    x_BDXY = torch.randn(1, 8, 28, 28, dtype=torch.float64)
    changed = x_BDXY.clone()
    changed[..., 0, 0] += 1
    far = (block(changed) - block(x_BDXY))[0, :, -1, -1].abs().max()
    print(f"opposite corner moves by {far:.1e}")
    assert far > 1e-6


# --8<-- [end:reach]


# --8<-- [start:axis]
def test_softmax_over_queries_is_no_average():
    """If all values are equal, their average is that value; over queries it is not."""
    block = NonLocal(16).double()
    x_BDXY = 2 * torch.randn(1, 16, 8, 8, dtype=torch.float64)
    q_BPK, k_BPK, _ = block.project(x_BDXY)
    score_BTS = q_BPK @ k_BPK.transpose(1, 2)
    right, wrong = score_BTS.softmax(dim=2).sum(2), score_BTS.softmax(dim=1).sum(2)
    print(f"sums of rows, softmax over keys: {right.min():.2f} to {right.max():.2f}")
    print(f"sums of rows, softmax over queries: {wrong.min():.2f} to {wrong.max():.2f}")
    torch.testing.assert_close(block.weight(x_BDXY).sum(2), torch.ones_like(right))
    assert wrong.max() - wrong.min() > 0.1


# --8<-- [end:axis]


# --8<-- [start:view]
def test_view_mixes_channels_and_positions():
    """`view(B, P, D)` has the right shape, but its rows are not positions."""
    x_BDXY = torch.arange(12).reshape(1, 3, 2, 2)
    right = x_BDXY.flatten(2).transpose(1, 2)
    wrong = x_BDXY.view(1, 4, 3)
    print("position (0, 0):", right[0, 0].tolist(), "view gives", wrong[0, 0].tolist())
    assert right[0, 0].tolist() == x_BDXY[0, :, 0, 0].tolist()
    assert wrong[0, 0].tolist() != x_BDXY[0, :, 0, 0].tolist()


# --8<-- [end:view]


# --8<-- [start:scale]
def test_long_vectors_without_scale_pick_one_key():
    """Without 1/sqrt(K) the largest weight goes to 1 as K grows."""
    for size in (16, 64, 256):
        q_PK, k_PK = torch.randn(2, 196, size)
        plain = (q_PK @ k_PK.T).softmax(1).amax(1).mean()
        scaled = (q_PK @ k_PK.T / size**0.5).softmax(1).amax(1).mean()
        print(f"K = {size:3d}: mean largest weight {plain:.2f}, scaled {scaled:.2f}")
    assert plain > 0.8 > 0.2 > scaled


# --8<-- [end:scale]


# --8<-- [start:zeros]
def test_zero_in_two_layers_never_trains():
    """With g zero as well, no weight ever gets a gradient, only the last bias."""
    block = NonLocal(8)
    nn.init.zeros_(block.g.weight)
    nn.init.zeros_(block.g.bias)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (block(torch.randn(2, 8, 5, 5)) - 1).square().mean().backward()
        for name in ("theta", "phi", "g", "last"):
            assert getattr(block, name).weight.grad.abs().max() == 0
        assert block.last.bias.grad.abs().min() > 0
        optimizer.step()
    x_BDXY = torch.randn(2, 8, 5, 5)
    added = block(x_BDXY) - x_BDXY
    torch.testing.assert_close(added, added[:1, :, :1, :1].expand_as(added))
    print(f"after 3 steps it adds constants, up to {added.max():.2f}")


# --8<-- [end:zeros]


def test_after_one_step_all_layers_learn():
    block = NonLocal(8)
    x_BDXY = torch.randn(2, 8, 5, 5)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    block(x_BDXY).square().mean().backward()
    assert block.g.weight.grad.abs().max() == 0
    assert block.last.weight.grad.abs().max() > 0
    optimizer.step()
    optimizer.zero_grad()
    block(x_BDXY).square().mean().backward()
    for layer in (block.theta, block.phi, block.g, block.last):
        assert layer.weight.grad.abs().max() > 0


@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))
def test_new_block_is_the_identity(B, D, X, Y):
    x_BDXY = torch.randn(B, D, X, Y)
    assert torch.equal(NonLocal(D)(x_BDXY), x_BDXY)


def test_block_adds_the_last_layer_of_the_average():
    block = trained(8)
    x_BDXY = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    expected = x_BDXY.clone()
    q, k, v = block.project(x_BDXY)
    for b in range(2):
        for p in range(12):
            score = [math.exp(float(q[b, p] @ k[b, s])) for s in range(12)]
            y = sum(w * v[b, s] for s, w in enumerate(score)) / sum(score)
            z = block.last.weight[:, :, 0, 0] @ y + block.last.bias
            expected[b, :, p // 4, p % 4] += z
    torch.testing.assert_close(block(x_BDXY), expected)


def test_position_is_not_seen():
    block = trained(8)
    x_BDXY = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    order = torch.randperm(16)

    def shuffle(x_BDXY):
        return x_BDXY.flatten(2)[..., order].unflatten(2, (4, 4))

    torch.testing.assert_close(block(shuffle(x_BDXY)), shuffle(block(x_BDXY)))


def test_images_of_a_batch_do_not_mix():
    block = trained(8)
    x_BDXY = torch.randn(3, 8, 4, 4, dtype=torch.float64)
    for image in range(3):
        torch.testing.assert_close(
            block(x_BDXY)[image], block(x_BDXY[image : image + 1])[0]
        )


def test_project_rows_are_positions():
    block = NonLocal(8)
    x_BDXY = torch.randn(1, 8, 3, 5)
    q_BPK, _, v_BPK = block.project(x_BDXY)
    expected = block.theta.weight[:, :, 0, 0] @ x_BDXY[0, :, 1, 2] + block.theta.bias
    torch.testing.assert_close(q_BPK[0, 1 * 5 + 2], expected)
    expected = block.g.weight[:, :, 0, 0] @ x_BDXY[0, :, 2, 4] + block.g.bias
    torch.testing.assert_close(v_BPK[0, -1], expected)


def test_inner_layers_halve_the_channels():
    assert NonLocal(64).theta.weight.shape[:2] == (32, 64)
    assert NonLocal(64, 10).g.weight.shape[:2] == (10, 64)
    assert NonLocal(1).phi.weight.shape[:2] == (1, 1)


def test_gradients():
    block = trained(4)
    x_BDXY = torch.randn(1, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x_BDXY,))


@pytest.mark.parametrize("size", [1, 2, 5, 14])
def test_a_convolution_moves_one_position_a_layer(size):
    assert layers_to_cross(size) == size - 1


def test_map_with_other_channels_is_refused():
    with pytest.raises(ValueError, match=r"x has shape \(2, 7, 4, 4\): expected"):
        NonLocal(8)(torch.randn(2, 7, 4, 4))


def test_page():
    output = run_main("snippets.vision.non_local").output
    assert "56x56       3136    9834496        37.52         1644   5035" in output
    assert "14x14        196      38416         0.15          103     20" in output
    assert "28x28: 27 convolutions" in output
    assert "weight on kind 1: 0.99" in output
