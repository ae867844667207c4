"""Moving digits, attention over time and space, and the view on real footage."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score
from torch import nn
from torch.nn.functional import avg_pool2d

from snippets.applications import video as page
from snippets.applications.blocks import UniformMixing, equal_weights
from snippets.applications.digits import read_digits
from snippets.applications.package_data import package_file
from snippets.applications.video import (
    FEATURES,
    FRAMES,
    MAKERS,
    Divided,
    Frames,
    Joint,
    Watcher,
    accuracy,
    frame_weights,
    make_clips,
    read_frames,
    shuffled,
    time_weights,
    train,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator(device=torch.get_default_device()).manual_seed(seed)


@pytest.fixture(scope="module")
def small():
    """The digits, 14 × 14."""
    return avg_pool2d(read_digits()[0], 2)


@pytest.fixture(scope="module")
def bikes():
    return read_frames(
        package_file(page.CLIPS_PACKAGE, "data/bikes.mp4", page.BIKES_DIGEST)
    )


def sharpened(model: Watcher) -> Watcher:
    """Make the weights far from equal."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "to_q.weight" in name:
                parameter.mul_(20)
    return model.eval()


# ---- the clips ----


def test_clips_equal_a_naive_drawing(small):
    """Frame by frame, each digit stands where the label says that it has moved to."""
    clip_BTXY, label_B = make_clips(small, 40, generator())
    pick_B2 = torch.randint(5000, (40, 2), generator=generator())
    assert clip_BTXY.shape == (40, FRAMES, 28, 28)
    assert set(label_B.tolist()) == {0, 1, 2, 3}
    for clip, label, picks in zip(clip_BTXY, label_B.tolist(), pick_B2, strict=True):
        for half, pick in zip((0, 1), picks.tolist(), strict=True):
            rows = clip[:, 14 * half : 14 * half + 14]
            right = label >> 1 if half == 0 else label & 1
            places = [
                [x for x in range(15) if frame[:, x : x + 14].equal(small[pick])]
                for frame in rows
            ]
            starts = [
                start
                for start in places[0]
                if all(
                    start + t * (1 if right else -1) in places[t] for t in range(FRAMES)
                )
            ]
            assert starts
            assert torch.isclose(rows.sum(), FRAMES * small[pick].sum())


def test_reversed_clips_are_clips_of_the_opposite_label(small):
    """Paths do not depend on the direction: their places have one distribution."""
    clip_BTXY, label_B = make_clips(small[:1], 3000, generator())
    center_BT = (clip_BTXY[:, :, :14].sum(2) * torch.arange(28)).sum(2)
    for ends in (center_BT[:, [0, -1]], center_BT[:, [-1, 0]]):
        assert ends.shape == (3000, 2)
    leftward = center_BT[label_B < 2].flip(1).mean(0)
    rightward = center_BT[label_B >= 2].mean(0)
    assert torch.allclose(leftward, rightward, rtol=0.02)


def test_labels_are_balanced(small):
    """Each of the four labels comes in about a quarter of the clips."""
    label_B = make_clips(small, 4000, generator())[1]
    assert label_B.bincount(minlength=4).min() > 900


def test_same_seed_same_clips(small):
    """Clips depend on the generator alone."""
    first, second, other = (make_clips(small, 4, generator(s))[0] for s in (1, 1, 2))
    assert first.equal(second)
    assert not first.equal(other)


def test_parts_share_no_digit(small):
    """Digits of the test are not among those to learn from, not even as copies."""
    learn_any, tune_any, test_any = small.split((3000, 1000, 1000))
    seen = {digit.cpu().numpy().tobytes() for digit in [*learn_any, *tune_any]}
    assert len(seen) == 4000
    assert not seen & {digit.cpu().numpy().tobytes() for digit in test_any}


def test_features_equal_numpy(small):
    """The plain baseline sees what its name says."""
    clip_BTXY, _ = make_clips(small, 5, generator())
    clips = clip_BTXY.cpu().numpy()
    found = {name: feature(clip_BTXY) for name, feature in FEATURES.items()}
    centers = [
        [(frame.sum(0) * np.arange(28)).sum() / frame.sum() for frame in clip]
        for clip in clips
    ]
    expected = {
        "first frame": clips[:, 0].reshape(5, -1),
        "mean frame": clips.mean(1).reshape(5, -1),
        "shift of the center": np.array([[c[-1] - c[0]] for c in centers]),
        "last - first frame": (clips[:, -1] - clips[:, 0]).reshape(5, -1),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.allclose(found[name].cpu().numpy(), value, atol=1e-4), name


# ---- the models ----


@given(
    batch=st.integers(1, 3),
    frames=st.integers(1, 4),
    places=st.integers(1, 5),
    kind=st.sampled_from([Divided, Joint, Frames]),
)
def test_blocks_keep_the_shape(batch, frames, places, kind):
    """Whatever the numbers of clips, frames and places."""
    x_BTPD = torch.randn(batch, frames, places, 8)
    assert kind(8, 4)(x_BTPD).shape == x_BTPD.shape


@pytest.mark.parametrize("kind", [Divided, Joint, Frames])
def test_what_a_token_sees(kind):
    """One block of divided attention sees everything in two steps, frames only theirs."""
    block, x_BTPD = kind(8, 4).eval(), torch.randn(2, 3, 4, 8)
    other_BTPD = x_BTPD.clone()
    other_BTPD[0, 1, 2] += torch.randn(8)
    changed = (block(x_BTPD) - block(other_BTPD)).abs().amax(3) > 1e-6
    assert not changed[1].any()
    if kind is Frames:
        assert changed[0, 1].all()
        assert not changed[0, [0, 2]].any()
    else:
        assert changed[0].all()


def test_divided_time_attention_stays_at_its_place():
    """Without the space half, a token sees its own place in every frame, and only it."""
    block, x_BTPD = Divided(8, 4).eval(), torch.randn(1, 3, 4, 8)
    block.space = nn.Identity()
    block.forward = lambda x: (
        x + block.time(block.over_time(x)).unflatten(0, (1, 4)).transpose(1, 2)
    )
    other_BTPD = x_BTPD.clone()
    other_BTPD[0, 1, 2] += torch.randn(8)
    changed = (block(x_BTPD) - block(other_BTPD)).abs().amax(3)[0] > 1e-6
    assert changed[:, 2].all()
    assert not changed[:, [0, 1, 3]].any()


def test_divided_equals_a_loop():
    """Place by place over time, then frame by frame over space."""
    block, x_BTPD = Divided(8, 4).eval(), torch.randn(2, 3, 4, 8)
    after = x_BTPD.clone()
    for place in range(4):
        column = x_BTPD[:, :, place]
        after[:, :, place] = column + block.time(block.norm(column))
    expected = torch.stack([block.space(after[:, t]) for t in range(3)], 1)
    assert torch.allclose(block(x_BTPD), expected, atol=1e-5)


@pytest.mark.parametrize("name", MAKERS)
def test_four_scores_a_clip(name):
    """Whatever the batch."""
    assert MAKERS[name]()(torch.rand(3, FRAMES, 28, 28)).shape == (3, 4)


def test_patches_are_where_they_should_be():
    """One changed pixel changes one token: its frame, its half, its quarter."""
    model, clip = Watcher(8, Joint), torch.zeros(1, FRAMES, 28, 28)
    before = model.tokens(clip)
    for frame, row, column in ((0, 0, 0), (2, 13, 6), (5, 14, 7), (3, 27, 27)):
        other = clip.clone()
        other[0, frame, row, column] = 1
        changed = (model.tokens(other) != before).any(3)[0].nonzero().tolist()
        assert changed == [[frame, row // 14 * 4 + column // 7]]


def test_pooled_frames_cannot_know_the_order(small):
    """Shuffled frames give the same scores; the other models notice."""
    clip_BTXY, _ = make_clips(small, 8, generator())
    for name, make in MAKERS.items():
        model = sharpened(make())
        gap = (model(clip_BTXY) - model(shuffled(clip_BTXY))).abs().max()
        assert (gap < 1e-4) == (name == "pooled frames"), name


def test_shuffled_keeps_the_frames(small):
    """Every clip keeps its own frames, each once, and orders differ between clips."""
    clip_BTXY, _ = make_clips(small, 30, generator())
    mixed = shuffled(clip_BTXY)
    orders = set()
    for before, after in zip(clip_BTXY, mixed, strict=True):
        order = [next(t for t in range(FRAMES) if f.equal(before[t])) for f in after]
        assert sorted(order) == list(range(FRAMES))
        orders.add(tuple(order))
    assert len(orders) > 20


def test_contestants_are_close_in_parameters():
    """The largest has less than 8 % more than the smallest; uniform means uniform."""
    counts = [sum(map(torch.numel, make().parameters())) for make in MAKERS.values()]
    assert max(counts) < 1.08 * min(counts)
    kinds = [type(module) for module in MAKERS["uniform"]().modules()]
    assert kinds.count(UniformMixing) == 4


def test_equal_weights_over_time_or_over_space(small):
    """The named weights are equal, the others and the original stay."""
    clip_BTXY, _ = make_clips(small, 4, generator())
    model = sharpened(Watcher(8, Divided))
    before = model(clip_BTXY)
    equal = torch.tensor(1 / FRAMES)
    assert not torch.allclose(time_weights(model, clip_BTXY), equal, atol=1e-3)
    for part in ("time", "space.mix"):
        changed = equal_weights(model, f"{part}.to_q")
        assert (changed(clip_BTXY) - before).abs().max() > 1e-4
        level = torch.allclose(time_weights(changed, clip_BTXY), equal, atol=1e-6)
        assert level == (part == "time")
    assert model(clip_BTXY).equal(before)


def test_time_weights_sum_to_one(small):
    """Rows are weights over the frames that are read."""
    weight_TT = time_weights(
        sharpened(Watcher(8, Divided)), make_clips(small, 4, generator())[0]
    )
    assert weight_TT.shape == (FRAMES, FRAMES)
    assert torch.allclose(weight_TT.sum(1), torch.ones(FRAMES))


def test_accuracy_equals_sklearn(small):
    """Also when the last part is a short one."""
    clip_BTXY, label_B = make_clips(small, 130, generator())
    model = Watcher(8, Joint).eval()
    expected = accuracy_score(label_B.cpu(), model(clip_BTXY).argmax(1).cpu())
    assert 0 < expected < 1
    assert accuracy(model, clip_BTXY, label_B) == pytest.approx(expected)


def test_loss_goes_down(small):
    """One digit only: a hundred steps and a half suffice."""
    torch.manual_seed(0)
    losses = train(Watcher(32, Joint), small[:1], 150)
    assert len(losses) == 150
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


# ---- the footage ----


def test_footage_is_what_the_page_says(bikes):
    """250 frames, small and gray, five abrupt changes well above all others."""
    assert bikes.shape == (250, 18, 32)
    assert bikes.min() >= 0
    assert bikes.max() <= 1
    change = bikes.diff(dim=0).abs().mean((1, 2))
    assert ((change > 0.15).nonzero().flatten() + 1).tolist() == [30, 76, 137, 187, 242]
    fifth, sixth = change.sort(descending=True).values[4:6]
    assert fifth > 2 * sixth


def test_frame_weights_equal_numpy(bikes):
    """Softmax of the cosines of centered frames, rows summing to one."""
    some = bikes[::50]
    pixels = some.flatten(1).double().cpu().numpy()
    cosine = np.corrcoef(pixels)
    expected = np.exp(10 * cosine) / np.exp(10 * cosine).sum(1, keepdims=True)
    found = frame_weights(some)
    assert np.allclose(found.cpu().numpy(), expected, atol=1e-5)
    assert torch.allclose(found.sum(1), torch.ones(len(some)))
