"""Find nuclei as a set of boxes: queries that attend to the photo, against an MLP."""

# --8<-- [start:imports]
import matplotlib.pyplot as plt
import torch
from scipy.optimize import linear_sum_assignment
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label, regionprops
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
from snippets.applications.blocks import Block, weights_of
from snippets.applications.nuclei import (
    COLUMNS,
    PACKAGE,
    load_nuclei,
    random_crops,
    strip,
    tiles,
)
from snippets.applications.races import parted, plot_losses, race, schedule, show, table

# --8<-- [start:boxes]
SIDE, SLOTS, SMALLEST = 64, 10, 6


def boxes_of(number_XY: Tensor) -> Tensor:
    """Return top, left, bottom, right of each nucleus, from 0 to 1, (E, 4).

    Slivers at the edge, narrower than SMALLEST pixels, are left out.
    """
    found = [
        region.bbox
        for region in regionprops(number_XY.cpu().numpy())
        if min(region.bbox[2] - region.bbox[0], region.bbox[3] - region.bbox[1])
        >= SMALLEST
    ]
    return torch.tensor(found).reshape(-1, 4) / SIDE


def overlap(a_BT4: Tensor, b_BS4: Tensor) -> Tensor:
    """Return the IoU of each box of a with each of b, (B, T, S)."""
    corner_BTS2 = torch.maximum(a_BT4[:, :, None, :2], b_BS4[:, None, :, :2])
    end_BTS2 = torch.minimum(a_BT4[:, :, None, 2:], b_BS4[:, None, :, 2:])
    both_BTS = (end_BTS2 - corner_BTS2).clamp(min=0).prod(-1)
    area_BT, area_BS = ((x_any[..., 2:] - x_any[..., :2]).prod(-1) for x_any in (a_BT4, b_BS4))
    return both_BTS / (area_BT[:, :, None] + area_BS[:, None] - both_BTS)


# --8<-- [end:boxes]


# --8<-- [start:models]
class Encoder(nn.Module):
    """A small CNN: 64×64 pixels become 8×8 positions with learned position codes."""

    def __init__(self, size: int) -> None:
        """Make convolutions and codes."""
        super().__init__()
        sizes = (16, size // 2, size, size)
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, size // 2, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(size // 2, size, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(size, size, 3, padding=1),
        )
        self.position = nn.Parameter(torch.randn(64, size)*0.5)
        self.norm = nn.LayerNorm(size)

    def forward(self, photo_BXY: Tensor) -> Tensor:
        """Return the positions, row by row, (B, P, D)."""
        x_BPD = self.layers(photo_BXY.unsqueeze(1)).flatten(2).transpose(1, 2)
        return self.norm(x_BPD) + self.position


class Queries(nn.Module):
    """Learned queries that look at the photo and at each other (Carion et al. 2020)."""

    def __init__(self, size: int, layers: int, together: bool) -> None:
        """Make encoder, queries and blocks; without `together` a query sees only itself."""
        super().__init__()
        self.encoder = Encoder(size)
        self.query = nn.Parameter(torch.randn(SLOTS, size))
        self.blocks = nn.ModuleList(Block(size, 4, cross=True, widen=2) for _ in range(layers))
        self.head = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 5))
        self.together = together

    def forward(self, photo_BXY: Tensor) -> Tensor:
        """Return score, center and size of each slot before the sigmoid, (B, T, 5)."""
        y_BPD = self.encoder(photo_BXY)
        x_BTD = self.query.expand(len(photo_BXY), -1, -1)
        alone_TT = torch.eye(SLOTS, dtype=torch.bool)
        mask_BTT = None if self.together else alone_TT.expand(len(x_BTD), -1, -1)
        for block in self.blocks:
            x_BTD = block(x_BTD, mask_BTT, y_BPD)
        return self.head(x_BTD)


class Flat(nn.Module):
    """The control: an MLP reads the whole map at once and fills the slots."""

    def __init__(self, size: int, inner_size: int) -> None:
        """Make encoder and MLP."""
        super().__init__()
        self.encoder = Encoder(size)
        self.narrow = nn.Linear(size, 8)
        self.head = nn.Sequential(
            nn.Linear(8 * 64, inner_size), nn.ReLU(), nn.Linear(inner_size, inner_size), nn.ReLU(), nn.Linear(inner_size, SLOTS * 5)
        )

    def forward(self, photo_BXY: Tensor) -> Tensor:
        """Return score, center and size of each slot before the sigmoid, (B, T, 5)."""
        narrow_any = self.narrow(self.encoder(photo_BXY)).flatten(1)
        return self.head(narrow_any).unflatten(1, (SLOTS, 5))


def corners(slot_BT5: Tensor) -> Tensor:
    """Turn center and size into top, left, bottom, right, (B, T, 4)."""
    center_BT2, size_BT2 = slot_BT5[..., 1:].sigmoid().split(2, dim=-1)
    return torch.cat([center_BT2 - size_BT2 / 2, center_BT2 + size_BT2 / 2], -1)


# --8<-- [end:models]


# --8<-- [start:loss]
def set_loss(slot_BT5: Tensor, truth: list[Tensor]) -> Tensor:
    """Pair each nucleus with one slot and return the loss (Carion et al. 2020, §3.1)."""
    box_BT4 = corners(slot_BT5)
    longest = max(1, max(map(len, truth)))
    truth_BS4 = torch.stack([torch.cat([t, t.new_tensor([[0., 0., 1., 1.]]).expand(longest - len(t), 4)]) for t in truth])
    real_BS = torch.arange(longest) < torch.tensor([len(t) for t in truth])[:, None]
    far_BTS = (box_BT4[:, :, None] - truth_BS4[:, None]).abs().sum(-1)
    iou_BTS = giou(box_BT4, truth_BS4)
    cost_BTS = (5 * far_BTS - 2 * iou_BTS - slot_BT5[..., :1].sigmoid()).detach().cpu().numpy()
    chosen_BT = torch.zeros(slot_BT5.shape[:2])
    pairs = torch.zeros_like(far_BTS)
    for b, t in enumerate(truth):
        if len(t):
            i, j = linear_sum_assignment(cost_BTS[b, :, :len(t)])
            pairs[b, i, j] = 1
    chosen_BT = pairs.sum(-1)
    count = max(1, pairs.sum())
    bce = nn.functional.binary_cross_entropy_with_logits(slot_BT5[..., 0], chosen_BT)
    return bce * WB + (pairs * (5 * far_BTS + 2 * (1 - iou_BTS))).sum() / count
WB=2

def giou(a_BT4, b_BS4):
    iou_BTS = overlap(a_BT4, b_BS4)
    hull_BTS2 = torch.maximum(a_BT4[:, :, None, 2:], b_BS4[:, None, :, 2:]) - torch.minimum(a_BT4[:, :, None, :2], b_BS4[:, None, :, :2])
    hull_BTS = hull_BTS2.prod(-1)
    area_BT, area_BS = ((x_any[..., 2:] - x_any[..., :2]).prod(-1) for x_any in (a_BT4, b_BS4))
    s = area_BT[:, :, None] + area_BS[:, None]
    union = s / (1 + iou_BTS)
    return iou_BTS - (hull_BTS - union) / hull_BTS


def train(model, photo_XY, mask_XY, steps, lr, batch=16):
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    losses = []
    for _ in range(steps):
        crop_BXY, number_BXY = random_crops(photo_XY, mask_XY, batch)
        loss = set_loss(model(crop_BXY), [boxes_of(n) for n in number_BXY])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


# --8<-- [end:loss]

def judge(found, truth):
    """found: list of (score_T, box_T4) ; truth list of E4. Return AP50, recall, duplicates."""
    marks = []
    n = sum(map(len, truth))
    for (score_T, box_T4), t in zip(found, truth):
        taken = set()
        if not len(box_T4): continue
        iou = overlap(box_T4[None], t[None])[0] if len(t) else torch.zeros(len(box_T4), 0)
        for k in score_T.argsort(descending=True).tolist():
            best = iou[k].argmax().item() if len(t) else -1
            hit = best >= 0 and iou[k, best] >= 0.5
            kind = "miss" if not hit else "twice" if best in taken else "hit"
            if hit: taken.add(best)
            marks.append((score_T[k].item(), kind))
    marks.sort(key=lambda m: -m[0])
    tp = 0; ps=[]; ap=0
    for i, (s, kind) in enumerate(marks, 1):
        if kind == "hit":
            tp += 1
            ap += tp / i / n
    sure = [k for s, k in marks if s > 0.5]
    return ap, sure.count("hit") / n, sure.count("twice") / n, sure.count("miss") / n


if __name__ == "__main__":
    import sys, time
    torch.manual_seed(0)
    photo_XY, mask_XY = load_nuclei()
    raw_XY = photo_XY
    mean, deviation = strip(photo_XY, "train").mean(), strip(photo_XY, "train").std()
    photo_XY = (photo_XY - mean) / deviation
    part = sys.argv[1]; steps = int(sys.argv[2]); seeds = int(sys.argv[3]); lr=float(sys.argv[4]); names=sys.argv[5].split(","); batch=int(sys.argv[6])
    makers = {
        "detr1": lambda: Queries(64, 1, True),
        "detr": lambda: Queries(64, 2, True),
        "detr3": lambda: Queries(64, 3, True),
        "alone": lambda: Queries(64, 2, False),
        "mlp": lambda: Flat(64, 150),
    }
    makers = {n: makers[n] for n in names}
    def found_by(m, part):
        v = tiles(strip(photo_XY, part), 64, 32)
        out = m(v)
        return list(zip(out[..., 0].sigmoid(), corners(out)))
    def truths(part): return [boxes_of(n) for n in tiles(strip(mask_XY, part), 64, 32)]
    print(part, sum(map(len, truths(part))), "boxes", len(truths(part)))
    for sig in (0,1,2,3):
        smooth=torch.tensor(gaussian(raw_XY.numpy(), sig)) if sig else raw_XY
        thr=threshold_otsu(strip(smooth,part).numpy())
        f=[]
        for v in tiles(strip(smooth, part),64,32):
            b=boxes_of(torch.tensor(label(v.numpy()>thr))); f.append((torch.ones(len(b)), b))
        print("otsu", sig, thr, judge(f, truths(part)))
    t=time.perf_counter()
    results = race(makers,
        lambda m: train(m, strip(photo_XY, "train"), strip(mask_XY, "train"), steps, lr, batch),
        lambda m: judge(found_by(m, part), truths(part))[0], seeds)
    table(results, "AP50")
    for n, r in results.items(): print(n, [[round(q,3) for q in judge(found_by(m,part), truths(part))] for m in r.models], "train", [[round(q,3) for q in judge(found_by(m,"train"), truths("train"))] for m in r.models], [sum(l[-20:])/20 for l in r.losses])
