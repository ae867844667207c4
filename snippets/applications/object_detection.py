"""Find nuclei as a set of boxes: queries that attend to the photo, against an MLP."""

# --8<-- [start:imports]

import matplotlib.pyplot as plt
import torch
from scipy.optimize import linear_sum_assignment
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label, regionprops
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
from snippets.applications.blocks import Block, equal_weights, weights_of
from snippets.applications.nuclei import (
    COLUMNS,
    PACKAGE,
    load_nuclei,
    random_crops,
    strip,
    tiles,
)
from snippets.applications.races import (
    in_short,
    parted,
    plot_losses,
    race,
    schedule,
    show,
    spread,
    table,
)
from snippets.positions.sinusoidal import sinusoidal

# --8<-- [start:boxes]
SIDE = 64  # pixels of a crop
Found = list[tuple[Tensor, Tensor]]  # a crop's scores (T) and boxes (T, 4)


def boxes_of(number_CC: Tensor) -> Tensor:
    """Return top, left, bottom, right of each region of 6 pixels or more, (E, 4)."""
    boxes = [region.bbox for region in regionprops(number_CC.cpu().numpy())]
    kept = [box for box in boxes if min(box[2] - box[0], box[3] - box[1]) >= 6]
    return torch.tensor(kept, dtype=torch.float).reshape(-1, 4) / SIDE


def stack(boxes_any: list[Tensor], most: int = 9) -> tuple[Tensor, Tensor]:
    """Return boxes (B, most, 4), padded with the whole crop, and which are real."""
    box_BE4 = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(len(boxes_any), most, 1)
    real_BE = torch.zeros(len(boxes_any), most, dtype=torch.bool)
    for row, box_any in enumerate(boxes_any):
        box_BE4[row, : len(box_any)] = box_any
        real_BE[row, : len(box_any)] = True
    return box_BE4, real_BE


def overlap(a_BT4: Tensor, b_BE4: Tensor) -> Tensor:
    """Return the IoU of each box of a with each of b, (B, T, E)."""
    start_BTE2 = torch.maximum(a_BT4[:, :, None, :2], b_BE4[:, None, :, :2])
    end_BTE2 = torch.minimum(a_BT4[:, :, None, 2:], b_BE4[:, None, :, 2:])
    both_BTE = (end_BTE2 - start_BTE2).clamp(min=0).prod(-1)
    a_BT, b_BE = (
        (box_any[..., 2:] - box_any[..., :2]).prod(-1) for box_any in (a_BT4, b_BE4)
    )
    return both_BTE / (a_BT[:, :, None] + b_BE[:, None] - both_BTE)


# --8<-- [end:boxes]


# --8<-- [start:encoder]
def grid(side: int) -> Tensor:
    """Return the centers of side × side cells, row by row, 0 to 1, (P, 2)."""
    center_X = (torch.arange(side) + 0.5) / side
    return torch.cartesian_prod(center_X, center_X)


def place_code(center_P2: Tensor, size: int) -> Tensor:
    """Return sines and cosines of the row, then of the column, (P, size)."""
    halves_any = [sinusoidal(SIDE * axis_P, size // 2) for axis_P in center_P2.T]
    return torch.cat(halves_any, dim=1).float()


class Encoder(nn.Module):
    """A small CNN: 64×64 pixels become 8×8 positions, each with a code of its place."""

    def __init__(self, size: int) -> None:
        """Make three convolutions that end with `size` channels."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, size, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(size, size, 3, padding=1),
        )
        self.norm = nn.LayerNorm(size)
        self.register_buffer("place_PD", place_code(grid(8), size))

    def forward(self, photo_BCC: Tensor) -> Tensor:
        """Return the positions, row by row, (B, P, D)."""
        map_BDXX = self.layers(photo_BCC.unsqueeze(1))
        return self.norm(map_BDXX.flatten(2).mT) + self.place_PD


# --8<-- [end:encoder]


# --8<-- [start:queries]
class Queries(nn.Module):
    """Learned queries that look at the photo and at each other (Carion et al. 2020)."""

    def __init__(self, together: bool = True, size: int = 64, side: int = 4) -> None:
        """Make side² queries; without `together` each sees itself only, not the others."""
        super().__init__()
        self.encoder = Encoder(size)
        self.query_TD = nn.Parameter(place_code(grid(side), size))
        self.blocks = nn.ModuleList(Block(size, 4, cross=True, widen=2) for _ in "12")
        for block in self.blocks:  # alike places get high scores from the start
            nn.init.normal_(block.cross.to_q.weight, std=0.15)
            block.cross.to_k.load_state_dict(block.cross.to_q.state_dict())
        self.head = nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 5)
        )
        allowed_TT = torch.eye(side**2) + together > 0
        self.register_buffer("allowed_TT", allowed_TT)
        self.register_buffer("start_T5", first_guess(side))

    def forward(self, photo_BCC: Tensor) -> Tensor:
        """Return each slot's score, center and size, all before a sigmoid, (B, T, 5)."""
        y_BPD = self.encoder(photo_BCC)
        x_BTD = self.query_TD.expand(len(y_BPD), -1, -1)
        mask_BTT = self.allowed_TT.expand(len(y_BPD), -1, -1)
        for block in self.blocks:
            x_BTD = block(x_BTD, mask_BTT, y_BPD)
        return self.start_T5 + self.head(x_BTD)


class Flat(nn.Module):
    """The control: an MLP reads the whole map at once and fills all slots."""

    def __init__(self, inner_size: int, size: int = 64, side: int = 4) -> None:
        """Make the encoder of `Queries`, and the MLP."""
        super().__init__()
        self.encoder = Encoder(size)
        self.narrow = nn.Linear(size, 8)
        self.mlp = nn.Sequential(
            nn.Linear(8 * 64, inner_size),
            nn.ReLU(),
            nn.Linear(inner_size, inner_size),
            nn.ReLU(),
            nn.Linear(inner_size, side**2 * 5),
        )
        self.register_buffer("start_T5", first_guess(side))

    def forward(self, photo_BCC: Tensor) -> Tensor:
        """Return each slot's score, center and size, all before a sigmoid, (B, T, 5)."""
        map_BF = self.narrow(self.encoder(photo_BCC)).flatten(1)
        return self.start_T5 + self.mlp(map_BF).unflatten(1, (-1, 5))


# --8<-- [end:queries]


# --8<-- [start:slots]
def first_guess(side: int) -> Tensor:
    """Return slots of score 0.5 that cover the crop as a grid, (T, 5), before sigmoid."""
    size_T2 = torch.full((side**2, 2), 0.35)
    score_T1 = torch.full((side**2, 1), 0.5)
    return torch.cat([score_T1, grid(side), size_T2], dim=1).logit()


def corners(slot_BT5: Tensor) -> Tensor:
    """Turn center and size before the sigmoid into top, left, bottom, right, (B, T, 4)."""
    center_BT2, size_BT2 = slot_BT5[..., 1:].sigmoid().split(2, dim=-1)
    return torch.cat([center_BT2 - size_BT2 / 2, center_BT2 + size_BT2 / 2], -1)


# --8<-- [end:slots]


# --8<-- [start:loss]
def set_loss(slot_BT5: Tensor, box_BE4: Tensor, real_BE: Tensor) -> Tensor:
    """Pair each nucleus with one slot of its own, then score that pairing (§3.1)."""
    found_BT4 = corners(slot_BT5)
    far_BTE = (found_BT4[:, :, None] - box_BE4[:, None]).abs().sum(-1)
    miss_BTE = 5 * far_BTE + 2 * (1 - overlap(found_BT4, box_BE4))
    cost_BTE = (miss_BTE - 2 * slot_BT5[..., :1].sigmoid()).detach().cpu()
    pair_BTE = torch.zeros_like(miss_BTE)
    for row, count in enumerate(real_BE.sum(1).tolist()):
        slots, nuclei = linear_sum_assignment(cost_BTE[row, :, :count].numpy())
        pair_BTE[row, slots, nuclei] = 1
    score = nn.functional.binary_cross_entropy_with_logits(
        slot_BT5[..., 0], pair_BTE.sum(-1)
    )
    return 4 * score + (pair_BTE * miss_BTE).sum() / pair_BTE.sum().clamp(min=1)


def train(
    model: nn.Module, crop_NCC: Tensor, box_NE4: Tensor, real_NE: Tensor, steps: int
) -> list[float]:
    """Train in place on batches of 16 crops; return the loss of every step."""
    lr = 3e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.15)
    losses = []
    for _ in range(steps):
        row_B = torch.randint(len(crop_NCC), (16,))
        loss = set_loss(model(crop_NCC[row_B]), box_NE4[row_B], real_NE[row_B])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        losses.append(loss.item())
    return losses


# --8<-- [end:loss]


# --8<-- [start:judge]
@torch.no_grad()
def detect(model: nn.Module, photo_BCC: Tensor) -> Found:
    """Return scores and boxes of each crop."""
    slot_BT5 = model(photo_BCC)
    return list(zip(slot_BT5[..., 0].sigmoid(), corners(slot_BT5), strict=True))


def judge(found: Found, truth_any: list[Tensor]) -> dict[str, float]:
    """Return AP50, and boxes of score > 0.5 that hit, repeat or are wrong, per nucleus."""
    scores, kinds, nuclei = [], [], sum(map(len, truth_any))
    for (score_T, box_T4), here_any in zip(found, truth_any, strict=True):
        iou_any, hit = overlap(box_T4[None], here_any[None])[0], set()
        for slot in score_T.argsort(descending=True).tolist():
            row = iou_any[slot].tolist()
            best = row.index(max(row)) if row and max(row) >= 0.5 else None
            kinds.append(
                "wrong" if best is None else "repeated" if best in hit else "hit"
            )
            scores.append(score_T[slot].item())
            hit.add(best)
    right = [kind == "hit" for kind in kinds]
    found_share = sum(right) / nuclei
    sure = [kind for kind, score in zip(kinds, scores, strict=True) if score > 0.5]
    return {
        "AP50": found_share and average_precision_score(right, scores) * found_share,
        **{kind: sure.count(kind) / nuclei for kind in ("hit", "repeated", "wrong")},
    }


# --8<-- [end:judge]


# --8<-- [start:otsu]
def bright_regions(photo_XY: Tensor, sigma: float, step: int) -> Found:
    """Return a box of score 1 around each region above Otsu's threshold, crop by crop."""
    smooth_XY = gaussian(photo_XY.cpu().numpy(), sigma)
    bright_BCC = tiles(torch.tensor(smooth_XY > threshold_otsu(smooth_XY)), SIDE, step)
    boxes_any = [
        boxes_of(torch.tensor(label(bright_CC.cpu().numpy())))
        for bright_CC in bright_BCC
    ]
    return [(torch.ones(len(box_E4)), box_E4) for box_E4 in boxes_any]


# --8<-- [end:otsu]


# --8<-- [start:draw]
def draw(ax: plt.Axes, title: str, photo_CC: Tensor, box_E4: Tensor) -> None:
    """Draw a crop and the boxes on it."""
    ax.imshow(photo_CC.cpu().clamp(max=3), cmap="gray")
    for top, left, bottom, right in (SIDE * box_E4).tolist():
        size = right - left, bottom - top
        ax.add_patch(plt.Rectangle((left, top), *size, fill=False, color="tab:orange"))
    ax.set(title=title, xticks=[], yticks=[])


# --8<-- [end:draw]


# --8<-- [start:looks]
@torch.no_grad()
def looks(model: Queries, photo_BCC: Tensor) -> Tensor:
    """Return where each query looks in the last block, mean of the heads, (B, T, P)."""
    weights_BHTP = []
    hook = model.blocks[-1].cross.register_forward_pre_hook(
        lambda layer, given_any: weights_BHTP.append(weights_of(layer, *given_any[:2]))
    )
    model(photo_BCC)
    hook.remove()
    return weights_BHTP[0].mean(1)


# --8<-- [end:looks]

if __name__ == "__main__":
    # --8<-- [start:data]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    plt.rcParams["image.interpolation"] = "none"  # pictures stay small in an SVG
    photo_XX, mask_XX = load_nuclei()
    numbers = [set(strip(mask_XX, part).unique().tolist()) - {0} for part in COLUMNS]
    assert len(set.union(*numbers)) == sum(map(len, numbers))
    mean, deviation = strip(photo_XX, "train").mean(), strip(photo_XX, "train").std()
    scaled_XX, step = (photo_XX - mean) / deviation, SIDE // 2
    crop_NCC, number_NCC = random_crops(
        strip(scaled_XX, "train"), strip(mask_XX, "train"), count=2048
    )
    box_NE4, real_NE = stack([boxes_of(number_CC) for number_CC in number_NCC])
    truth = {
        part: [boxes_of(part_CC) for part_CC in tiles(strip(mask_XX, part), SIDE, step)]
        for part in ("validation", "test")
    }
    test_BCC = tiles(strip(scaled_XX, "test"), SIDE, step)
    print(f"{PACKAGE}: {[len(part) for part in numbers]} nuclei in {list(COLUMNS)}")
    print(f"train: {len(crop_NCC)} crops, {real_NE.sum().item()} boxes")
    for part, boxes in truth.items():
        print(f"{part}: {len(boxes)} crops, {sum(map(len, boxes))} boxes")
    # --8<-- [end:data]

    # --8<-- [start:baseline]
    scores = {}
    for sigma in (0, 1, 2):
        found = bright_regions(strip(photo_XX, "validation"), sigma, step)
        scores[sigma] = judge(found, truth["validation"])["AP50"]
    sigma = max(scores, key=scores.get)
    regions = bright_regions(strip(photo_XX, "test"), sigma, step)
    plain = judge(regions, truth["test"])
    print(f"blur of {sigma}:", {name: round(value, 2) for name, value in plain.items()})
    # --8<-- [end:baseline]

    # --8<-- [start:compare]
    results = race(
        {
            "queries": lambda: Queries(),
            "apart": lambda: Queries(together=False),
            "MLP": lambda: Flat(143),
        },
        lambda model: train(model, crop_NCC, box_NE4, real_NE, schedule(400, 4000)),
        lambda model: judge(detect(model, test_BCC), truth["test"])["AP50"],
    )
    table(results, "AP50")
    in_short(results["MLP"], results["queries"], plain["AP50"])
    scores = {name: runs.scores for name, runs in results.items()}
    print("queries, apart: intervals part:", parted(scores["queries"], scores["apart"]))
    assert parted(scores["queries"], scores["MLP"])
    assert min(scores["queries"] + scores["apart"]) > plain["AP50"]
    # --8<-- [end:compare]

    # --8<-- [start:duplicates]
    kinds, names = {}, ("hit", "repeated", "wrong")
    for name, runs in results.items():
        rows = [judge(detect(model, test_BCC), truth["test"]) for model in runs.models]
        kinds[name] = rows
        print(
            name, [f"{kind} {show([row[kind] for row in rows], 2)}" for kind in names]
        )
    twice = {name: [row["repeated"] for row in rows] for name, rows in kinds.items()}
    assert abs(spread(twice["queries"])[0] - spread(twice["apart"])[0]) < 0.1
    # --8<-- [end:duplicates]

    # --8<-- [start:losses]
    plot_losses(results)
    # --8<-- [end:losses]

    # --8<-- [start:picture]
    crop = max(range(len(test_BCC)), key=lambda row: len(truth["test"][row]))
    shown = {"truth": truth["test"][crop], "Otsu": regions[crop][1]}
    for name, runs in results.items():
        score_T, box_T4 = detect(runs.models[0], test_BCC)[crop]
        shown[name] = box_T4[score_T > 0.5]
    _, axes = plt.subplots(1, len(shown), figsize=(10, 2.3))
    for ax, (name, boxes_any) in zip(axes, shown.items(), strict=True):
        draw(ax, name, test_BCC[crop], boxes_any)
    plt.show()
    # --8<-- [end:picture]

    # --8<-- [start:weights]
    model = results["queries"].models[0]
    score_T, box_T4 = detect(model, test_BCC)[crop]
    weight_BTP = looks(model, test_BCC)
    _, axes = plt.subplots(1, 4, figsize=(8, 2.3))
    for ax, slot in zip(axes, score_T.argsort(descending=True).tolist(), strict=False):
        title = f"query {slot}: {score_T[slot]:.2f}"
        draw(ax, title, test_BCC[crop], box_T4[slot : slot + 1])
        weight_any = weight_BTP[crop, slot].unflatten(0, (8, 8)).cpu()
        ax.imshow(weight_any, alpha=0.5, extent=(-0.5, 63.5, 63.5, -0.5))
    plt.show()
    # --8<-- [end:weights]

    # --8<-- [start:equal]
    for part in ("cross", "mix"):
        equal = [
            judge(detect(equal_weights(model, f"{part}.to_q"), test_BCC), truth["test"])
            for model in results["queries"].models
        ]
        values = (f"{key} {show([row[key] for row in equal], 2)}" for key in plain)
        print(f"{part:5}", ", ".join(values))
    assert spread([row["repeated"] for row in equal])[0] > spread(twice["queries"])[0]
    # --8<-- [end:equal]
