"""Boxes, the set loss, the three detectors, and the judge."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import find_objects

from snippets.applications.blocks import equal_weights
from snippets.applications.nuclei import load_nuclei, strip, tiles
from snippets.applications.object_detection import (
    Flat,
    Queries,
    boxes_of,
    bright_regions,
    corners,
    detect,
    draw,
    first_guess,
    judge,
    looks,
    overlap,
    set_loss,
    stack,
    train,
)


def random_boxes(*shape, generator=None):
    """Return boxes with top < bottom and left < right, from 0 to 1."""
    ends = torch.rand(*shape, 2, 2, generator=generator).sort(-2).values
    return ends.flatten(-2)


# ---- boxes ----


def test_boxes_of_the_masks_equal_scipy_s():
    """On the test strip, and slivers at the edge are left out."""
    for number in tiles(strip(load_nuclei()[1], "test"), 64, 32):
        expected = []
        for found in find_objects(number.numpy()):
            if found is None:
                continue
            rows, columns = found
            if min(rows.stop - rows.start, columns.stop - columns.start) >= 6:
                expected.append((rows.start, columns.start, rows.stop, columns.stop))
        assert (boxes_of(number) * 64).tolist() == [
            list(map(float, e)) for e in expected
        ]


def test_no_nucleus_no_box():
    """An empty crop has no boxes, not one of nothing."""
    assert boxes_of(torch.zeros(64, 64, dtype=torch.long)).shape == (0, 4)


def test_counts_are_the_page_s():
    """33 boxes in 15 crops of the validation strip, 99 in 45 of the test strip."""
    mask = load_nuclei()[1]
    for part, crops, boxes in (("validation", 15, 33), ("test", 45, 99)):
        views = tiles(strip(mask, part), 64, 32)
        assert len(views) == crops
        assert sum(len(boxes_of(view)) for view in views) == boxes


def test_stack_pads():
    """Real boxes first, the rest marked."""
    boxes = [random_boxes(2), random_boxes(0), random_boxes(3)]
    box, real = stack(boxes, most=4)
    assert real.tolist() == [[n < len(here) for n in range(4)] for here in boxes]
    for row, here in enumerate(boxes):
        assert torch.equal(box[row][real[row]], here)


@given(seed=st.integers(0, 1000), T=st.integers(1, 4), E=st.integers(0, 4))
def test_overlap_equals_counting_pixels(seed, T, E):
    """Boxes on a grid of whole pixels, filled and counted."""
    generator = np.random.default_rng(seed)

    def draw(count):
        start = generator.integers(0, 8, (count, 2))
        return np.concatenate([start, start + generator.integers(1, 5, (count, 2))], 1)

    def fill(box):
        picture = np.zeros((13, 13), dtype=bool)
        picture[box[0] : box[2], box[1] : box[3]] = True
        return picture

    a, b = draw(T), draw(E)
    expected = [
        [(fill(x) & fill(y)).sum() / (fill(x) | fill(y)).sum() for y in b] for x in a
    ]
    iou = overlap(torch.tensor(a)[None].float(), torch.tensor(b)[None].float())[0]
    assert iou.shape == (T, E)
    np.testing.assert_allclose(
        iou.numpy().reshape(T, E), np.reshape(expected, (T, E)), rtol=1e-6
    )


def test_first_guess_is_a_grid():
    """Centers in the middle of the cells, size 0.35, undecided."""
    slot = first_guess(2)
    assert torch.allclose(slot[:, 0], torch.zeros(4))
    box = corners(slot[None])[0]
    center = torch.tensor([[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]])
    assert torch.allclose((box[:, :2] + box[:, 2:]) / 2, center)
    assert torch.allclose(box[:, 2:] - box[:, :2], torch.full((4, 2), 0.35))


# ---- the loss ----


@given(seed=st.integers(0, 1000), E=st.integers(0, 3))
def test_set_loss_is_that_of_the_best_pairing(seed, E):
    """Tried against every way to give each nucleus a slot of its own."""
    generator = torch.Generator().manual_seed(seed)
    slot = torch.randn(1, 4, 5, generator=generator)
    truth = random_boxes(E, generator=generator)
    box, real = stack([truth], most=3)
    found = corners(slot)[0]
    iou = overlap(found[None], truth[None])[0]

    def miss(t, e):
        return 5 * (found[t] - truth[e]).abs().sum() + 2 * (1 - iou[t, e])

    best = min(
        itertools.permutations(range(4), E),
        key=lambda slots: sum(
            (miss(t, e) - 2 * slot[0, t, 0].sigmoid()).item()
            for e, t in enumerate(slots)
        ),
    )
    target = torch.zeros(4)
    target[list(best)] = 1
    expected = 4 * torch.nn.functional.binary_cross_entropy_with_logits(
        slot[0, :, 0], target
    )
    if E:
        expected = expected + sum(miss(t, e) for e, t in enumerate(best)) / E
    torch.testing.assert_close(set_loss(slot, box, real), expected)


def test_padding_of_the_boxes_changes_nothing():
    """Room for more boxes, the same loss."""
    slot, truth = torch.randn(2, 16, 5), [random_boxes(2), random_boxes(1)]
    short, long = (set_loss(slot, *stack(truth, most=most)) for most in (2, 7))
    torch.testing.assert_close(short, long)


def test_order_of_the_nuclei_does_not_matter():
    """A set has none."""
    slot, truth = torch.randn(1, 16, 5), random_boxes(4)
    there, back = (set_loss(slot, *stack([t])) for t in (truth, truth.flip(0)))
    torch.testing.assert_close(there, back)


# ---- the detectors ----

DETECTORS = {
    "queries": lambda: Queries(),
    "apart": lambda: Queries(together=False),
    "MLP": lambda: Flat(143),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_shapes(name):
    """Sixteen slots of five numbers for each crop."""
    assert DETECTORS[name]()(torch.randn(3, 64, 64)).shape == (3, 16, 5)


def test_the_race_is_fair():
    """Parameters agree within 0.2 percent; with and without the others, exactly."""
    queries, apart, mlp = (
        sum(part.numel() for part in make().parameters()) for make in DETECTORS.values()
    )
    assert queries == apart
    assert abs(mlp - queries) < 0.002 * queries


@pytest.mark.parametrize("together", [True, False])
def test_queries_see_each_other_only_together(together):
    """Changing one query moves the others, or does not."""
    torch.manual_seed(0)
    model = Queries(together)
    photo = torch.randn(1, 64, 64)
    before = model(photo)
    with torch.no_grad():
        model.query_TD[0] += torch.randn(64)
    moved = (model(photo) != before).any(-1)[0]
    assert moved[0]
    assert moved[1:].any().item() is together


def test_looks_are_the_weights_of_the_last_cross_attention():
    """Rows sum to one; with these weights the block gives what it gives."""
    torch.manual_seed(0)
    model = Queries()
    photo = torch.randn(2, 64, 64)
    weight = looks(model, photo)
    assert weight.shape == (2, 16, 64)
    torch.testing.assert_close(weight.sum(-1), torch.ones(2, 16))
    assert not torch.allclose(weight[0, 0], weight[0, 1])
    assert not torch.allclose(weight[0], weight[1])


@pytest.mark.parametrize("part", ["cross", "mix"])
def test_attention_is_used(part):
    """Equal weights in place of learned ones change the slots, not the model itself."""
    torch.manual_seed(0)
    model = Queries()
    photo = torch.randn(1, 64, 64)
    before = model(photo)
    assert not torch.allclose(
        equal_weights(model, f"{part}.to_q")(photo), before, atol=1e-4
    )
    assert torch.equal(model(photo), before)


def test_every_crop_for_itself():
    """What else is in the batch changes nothing."""
    model = Queries().double()
    photo = torch.randn(2, 64, 64, dtype=torch.double)
    torch.testing.assert_close(model(photo)[:1], model(photo[:1]))


@pytest.mark.parametrize("name", DETECTORS)
def test_loss_goes_down(name):
    """A few steps on one crop teach it."""
    torch.manual_seed(0)
    photo, mask = (picture[64:128, 64:128] for picture in load_nuclei())
    photo = ((photo - photo.mean()) / photo.std())[None]
    box, real = stack([boxes_of(mask)])
    losses = train(DETECTORS[name](), photo, box, real, steps=20)
    assert len(losses) == 20
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])


# ---- the judge ----


def slow_judge(found, truth):
    """Count again, box by box and threshold by threshold."""
    rows = []
    for (scores, boxes), here in zip(found, truth, strict=True):
        hit = set()
        for slot in sorted(range(len(scores)), key=lambda s: -scores[s].item()):
            values = [
                overlap(boxes[slot][None, None], t[None, None]).item() for t in here
            ]
            best = max(range(len(values)), key=values.__getitem__, default=None)
            if best is None or values[best] < 0.5:
                rows.append((scores[slot].item(), "wrong"))
            else:
                rows.append((scores[slot].item(), "repeated" if best in hit else "hit"))
                hit.add(best)
    nuclei = sum(map(len, truth))
    area, before = 0.0, 0.0
    for threshold in sorted({score for score, _ in rows}, reverse=True):
        kept = [kind for score, kind in rows if score >= threshold]
        recall = kept.count("hit") / nuclei
        area += (recall - before) * kept.count("hit") / len(kept)
        before = recall
    sure = [kind for score, kind in rows if score > 0.5]
    return {"AP50": area} | {
        kind: sure.count(kind) / nuclei for kind in ("hit", "repeated", "wrong")
    }


@given(seed=st.integers(0, 1000))
def test_judge_equals_a_loop(seed):
    """Truth, moved a little and repeated, among boxes of chance; scores may tie."""
    generator = torch.Generator().manual_seed(seed)
    found, truth = [], []
    for nuclei, chance in ((2, 2), (0, 1), (3, 0)):
        here = random_boxes(nuclei, generator=generator)
        near = torch.cat([here, here + 0.02])
        boxes = torch.cat([near, random_boxes(chance, generator=generator)])
        scores = torch.randint(1, 10, (len(boxes),), generator=generator) / 10
        found.append(
            (scores + torch.rand(len(boxes), generator=generator) / 100, boxes)
        )
        truth.append(here)
    fast, slow = judge(found, truth), slow_judge(found, truth)
    assert fast == pytest.approx(slow)


def test_judge_of_the_truth_itself():
    """Each nucleus once: 1, 1, 0, 0. Twice: the second is a repetition."""
    truth = [random_boxes(3)]
    once = judge([(torch.ones(3), truth[0])], truth)
    assert once == {"AP50": 1, "hit": 1, "repeated": 0, "wrong": 0}
    scores = torch.tensor([0.9, 0.9, 0.9, 0.6, 0.6, 0.6])
    twice = judge([(scores, truth[0].repeat(2, 1))], truth)
    assert twice == {"AP50": 1, "hit": 1, "repeated": 1, "wrong": 0}


def test_judge_of_nothing():
    """No box, or none that hits: AP50 is 0 and nothing is divided by zero."""
    truth = [torch.tensor([[0.0, 0.0, 0.2, 0.2]])]
    far = torch.tensor([[0.5, 0.5, 0.9, 0.9]])
    nothing = {"AP50": 0, "hit": 0, "repeated": 0, "wrong": 0}
    assert judge([(torch.ones(0), torch.zeros(0, 4))], truth) == nothing
    assert judge([(torch.ones(1), far)], truth) == nothing | {"wrong": 1}


def test_bright_regions_find_bright_squares():
    """Two squares on black, in the crops in which they stand."""
    photo = torch.zeros(64, 128)
    photo[10:30, 5:25] = photo[20:40, 80:100] = 1.0
    (score, left), (_, right) = bright_regions(photo, 0, 64)
    assert score.tolist() == [1]
    assert (left * 64).tolist() == [[10, 5, 30, 25]]
    assert (right * 64).tolist() == [[20, 16, 40, 36]]


def test_detect_gives_scores_and_boxes():
    """Scores between 0 and 1, boxes with their corners in order."""
    found = detect(Flat(8), torch.randn(2, 64, 64))
    assert len(found) == 2
    for scores, boxes in found:
        assert scores.shape == (16,)
        assert ((0 < scores) & (scores < 1)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_draw_puts_each_box_where_it_is():
    """Rows run down, columns to the right."""
    _, ax = plt.subplots()
    draw(ax, "title", torch.rand(64, 64), torch.tensor([[0.25, 0.5, 0.5, 1.0]]))
    (patch,) = ax.patches
    assert patch.get_bbox().extents.tolist() == [32, 16, 64, 32]
    plt.close("all")
