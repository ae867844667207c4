"""Gates and attention on digits: the models, the fair race, what leveling changes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score
from torch import nn

from snippets.applications import image_classification as page
from snippets.applications.blocks import UniformMixing
from snippets.applications.digits import read_digits
from snippets.applications.image_classification import (
    MAKERS,
    SmallCNN,
    SmallViT,
    accuracy,
    class_weights,
    leveled,
    mean_gate,
    spatial_gates,
    train,
)
from snippets.applications.races import parted
from snippets.vision.cbam import CBAM
from snippets.vision.squeeze_excitation import SqueezeExcitation


@pytest.fixture(scope="module")
def digits():
    return read_digits()


def sharpened(vit: SmallViT) -> SmallViT:
    """Make the weights of every block far from equal."""
    with torch.no_grad():
        for block in vit.blocks:
            block.mix.to_q.weight.mul_(30)
    return vit.eval()


@pytest.mark.parametrize("name", MAKERS)
@given(batch=st.integers(1, 5))
def test_ten_scores_an_image(name, batch):
    """Whatever the batch, ten scores each."""
    assert MAKERS[name]().eval()(torch.rand(batch, 28, 28)).shape == (batch, 10)


def test_contestants_are_equal_in_parameters():
    """The largest has less than 2 % more parameters than the smallest."""
    counts = [sum(map(torch.numel, make().parameters())) for make in MAKERS.values()]
    assert max(counts) < 1.02 * min(counts)


def test_contestants_are_what_their_names_say():
    """Three gates each in the gated networks, none in the plain one; two mixers."""
    kinds = {
        name: [type(module) for module in make().modules()]
        for name, make in MAKERS.items()
    }
    assert kinds["CNN + SE"].count(SqueezeExcitation) == 3
    assert kinds["CNN + CBAM"].count(CBAM) == 3
    assert not {SqueezeExcitation, CBAM} & set(kinds["CNN"])
    assert kinds["ViT, uniform"].count(UniformMixing) == 2
    assert UniformMixing not in kinds["ViT"]


@pytest.mark.parametrize("name", MAKERS)
def test_images_do_not_see_each_other(name):
    """In eval mode a batch equals its images one by one."""
    model, image_BXY = MAKERS[name]().eval(), torch.rand(3, 28, 28)
    alone = torch.cat([model(image_BXY[i : i + 1]) for i in range(3)])
    assert torch.allclose(model(image_BXY), alone, atol=1e-5)


@given(row=st.integers(0, 27), column=st.integers(0, 27))
def test_patches_lie_row_by_row(row, column):
    """One changed pixel changes one token: the one of its 4 × 4 patch."""
    vit, image_1XY = SmallViT(8), torch.zeros(1, 28, 28)
    before = vit.tokens(image_1XY)
    image_1XY[0, row, column] = 1
    changed = (vit.tokens(image_1XY) != before).any(2)[0].nonzero().flatten().tolist()
    assert changed == [1 + row // 4 * 7 + column // 4]


def test_places_matter():
    """Two patches exchanged change the scores: places are told apart."""
    vit, image_1XY = sharpened(SmallViT(8)), torch.rand(1, 28, 28)
    other_1XY = image_1XY.clone()
    other_1XY[:, :4, :4], other_1XY[:, 4:8, :4] = (
        image_1XY[:, 4:8, :4],
        image_1XY[:, :4, :4],
    )
    assert (vit(image_1XY) - vit(other_1XY)).abs().max() > 1e-3


def test_attention_is_used():
    """Equal weights in place of learned ones change the scores of the ViT."""
    vit, image_BXY = sharpened(SmallViT(8)), torch.rand(4, 28, 28)
    assert (vit(image_BXY) - leveled(vit)(image_BXY)).abs().max() > 1e-2
    assert torch.allclose(
        class_weights(leveled(vit), image_BXY), torch.tensor(1 / 50), atol=1e-6
    )


def test_class_weights_are_those_of_the_last_block():
    """Rows sum to one, differ between images, and the last block alone sets them."""
    vit, image_BXY = sharpened(SmallViT(8)), torch.rand(4, 28, 28)
    weight_BT = class_weights(vit, image_BXY)
    assert weight_BT.shape == (4, 50)
    assert torch.allclose(weight_BT.sum(1), torch.ones(4))
    assert not torch.allclose(weight_BT[0], weight_BT[1])
    nn.init.zeros_(vit.blocks[1].mix.to_q.weight)
    nn.init.zeros_(vit.blocks[1].mix.to_q.bias)
    assert torch.allclose(class_weights(vit, image_BXY), torch.tensor(1 / 50))


def test_spatial_gates_are_those_that_the_network_uses():
    """What the figure shows is what the first CBAM multiplies by."""
    cnn = MAKERS["CNN + CBAM"]().eval()
    image_BXY, kept = torch.rand(3, 28, 28), []
    cnn.stages[3].spatial.register_forward_hook(lambda *given: kept.append(given[2]))
    cnn(image_BXY)
    assert torch.equal(spatial_gates(cnn, image_BXY), kept[0].flatten(1))


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1, 1), (3, 1, 5, 6)])
def test_mean_gate_equals_a_loop(shape):
    """The mean over the images, one channel and place at a time."""
    gate_any = torch.rand(shape)
    found = mean_gate(nn.Identity(), (), gate_any)
    assert found.shape == gate_any.shape
    for image in found:
        assert torch.allclose(image, sum(gate_any) / len(gate_any))


@pytest.mark.parametrize("name", ["CNN + SE", "CNN + CBAM"])
def test_leveled_gates_are_the_same_for_every_image(name):
    """Gates differ between images before, and are equal after."""
    spread = {}
    for level in (False, True):
        model = MAKERS[name]().eval()
        with torch.no_grad():
            for part in model.modules():
                if isinstance(part, nn.Conv2d | nn.Linear):
                    part.weight.mul_(4)
        kept, model = [], leveled(model) if level else model
        for module in model.modules():
            gates = []
            if isinstance(module, SqueezeExcitation):
                gates = [module.widen]
            elif isinstance(module, CBAM):
                gates = [module.channel, module.spatial]
            for gate in gates:
                gate.register_forward_hook(lambda *given, k=kept: k.append(given[2]))
        model(torch.rand(6, 28, 28))
        assert len(kept) == (3 if name == "CNN + SE" else 6)
        spread[level] = max(
            (gate - gate.mean(0, keepdim=True)).abs().max() for gate in kept
        )
    assert spread[True] < 1e-5 < 1e-2 < spread[False]


def test_leveled_leaves_the_original_and_a_plain_network_alone():
    """A copy is changed, not the model; without gates nothing changes."""
    image_BXY = torch.rand(4, 28, 28)
    for name in ("CNN", "CNN + SE", "CNN + CBAM", "ViT"):
        model = MAKERS[name]().eval()
        before = model(image_BXY)
        after = leveled(model)(image_BXY)
        assert torch.equal(model(image_BXY), before)
        if name == "CNN":
            assert torch.equal(after, before)


def test_accuracy_equals_sklearn(digits):
    """The share of right answers."""
    digit_NXY, label_N = (part[:200] for part in digits)
    model = SmallCNN(8).eval()
    expected = accuracy_score(label_N, model(digit_NXY).argmax(1))
    assert 0 < expected < 1
    assert accuracy(model, digit_NXY, label_N) == pytest.approx(expected)


def test_every_image_is_used_once_an_epoch(digits, monkeypatch):
    """No image is left out or doubled, the order changes, each step is counted."""
    digit_NXY, label_N = (part[:100] for part in digits)
    seen = []
    model = SmallCNN(8)
    monkeypatch.setattr(
        model, "forward", lambda x: seen.append(x) or SmallCNN.forward(model, x)
    )
    assert len(train(model, digit_NXY, label_N, 2)) == 4
    first, second = (torch.cat(seen[i : i + 2]) for i in (0, 2))
    assert not torch.equal(first, second)
    for epoch in (first, second):
        assert torch.equal(
            epoch.flatten(1).sum(1).sort().values,
            digit_NXY.flatten(1)[: len(epoch)].sum(1).sort().values,
        )


@pytest.mark.parametrize("name", ["CNN", "CNN + SE", "CNN + CBAM", "ViT"])
def test_loss_goes_down(name, digits):
    """A few passes over a hundred images teach something."""
    digit_NXY, label_N = (part[:100] for part in digits)
    torch.manual_seed(0)
    losses = train(MAKERS[name](), digit_NXY, label_N, 20)
    assert sum(losses[-4:]) < 0.85 * sum(losses[:4])


def test_gradients_reach_every_parameter(digits):
    """All parts learn, the class token and the places too."""
    digit_NXY, label_N = (part[:50] for part in digits)
    for make in MAKERS.values():
        model = make()
        loss = nn.functional.cross_entropy(model(digit_NXY), label_N)
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad.isfinite().all(), name
            if "place" in name or "class" in name or "to_q.weight" in name:
                assert (parameter.grad != 0).any(), name


def test_rates_cover_every_contestant():
    """Each kind of model has its learning rate; `parted` is what the page asserts."""
    assert {type(make()) for make in MAKERS.values()} == set(page.RATES)
    assert page.parted is parted
