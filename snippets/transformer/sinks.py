"""Attention sinks: a place for weight that belongs nowhere, and a cache that keeps it."""

# --8<-- [start:imports]
import math
from functools import partial

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
from snippets.foundations.scaled_dot_product import attend, check_sizes, weigh
from snippets.properties.cost import peak_bytes, plot_growth
from snippets.transformer.soft_capping import clear_hidden


# --8<-- [start:sink-softmax]
def sink_softmax(
    score_BHTS: Tensor, sink_H: Tensor, mask_BHTS: Tensor | None = None
) -> Tensor:
    """Softmax over the keys and one more logit per head, whose share is dropped.

    Returns weights (B, H, T, S) that sum to less than 1; a row that sees no key is all
    zeros. The logit of a sink is finite.
    """
    if mask_BHTS is not None:
        score_BHTS = score_BHTS.masked_fill(~mask_BHTS, -math.inf)
    wide_BHTS = score_BHTS.to(torch.promote_types(score_BHTS.dtype, torch.float32))
    sink_H11 = sink_H.to(wide_BHTS.dtype).view(-1, 1, 1)
    # The sink belongs to the maximum: alone far above it, its exponential overflows.
    top_BHT1 = torch.maximum(wide_BHTS.amax(-1, keepdim=True), sink_H11).detach()
    part_BHTS = torch.exp(wide_BHTS - top_BHT1)
    whole_BHT1 = part_BHTS.sum(-1, keepdim=True) + torch.exp(sink_H11 - top_BHT1)
    return (part_BHTS / whole_BHT1).to(score_BHTS.dtype)


# --8<-- [end:sink-softmax]


# --8<-- [start:attend-with-sink]
def attend_with_sink(
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSV: Tensor,
    sink_H: Tensor,
    mask_BHTS: Tensor | None = None,
) -> Tensor:
    """Attend with a learned sink logit for each head, as gpt-oss does.

    The mask is boolean, True = may attend. Returns (B, H, T, V); a query that may
    see no key gets zeros. Raises ValueError when sizes do not fit.
    """
    check_sizes(q_BHTK, k_BHSK, v_BHSV, mask_BHTS)
    if sink_H.shape != q_BHTK.shape[1:2]:
        raise ValueError(
            f"sink has shape {tuple(sink_H.shape)}, query has {q_BHTK.shape[1]} heads: "
            "one number for each is expected"
        )
    q_BHTK, k_BHSK = clear_hidden(q_BHTK, k_BHSK, mask_BHTS)
    q_BHTK = q_BHTK / math.sqrt(q_BHTK.shape[-1])
    score_BHTS = torch.einsum("BHTK,BHSK->BHTS", q_BHTK, k_BHSK)
    return weigh(sink_softmax(score_BHTS, sink_H, mask_BHTS), v_BHSV)


# --8<-- [end:attend-with-sink]


# --8<-- [start:window]
def window_mask(T: int, S: int, window: int, first: int = 0) -> Tensor:
    """Let the last T of S positions see `window` keys up to their own, and the `first`.

    Returns booleans (T, S), True = may attend. Raises ValueError when T exceeds S, the
    window is empty or `first` is negative.
    """
    if T > S:
        raise ValueError(
            f"there are {T} queries, {S} keys: queries are the last of them"
        )
    if window < 1 or first < 0:
        raise ValueError(
            f"window is {window}, first is {first}: expected at least 1 and 0"
        )
    query_T1 = torch.arange(S - T, S).unsqueeze(1)
    key_S = torch.arange(S)
    recent_TS = query_T1 - key_S < window
    return (key_S <= query_T1) & (recent_TS | (key_S < first))


def evict(cache_BHSK: Tensor, window: int, first: int = 0) -> Tensor:
    """Keep the first keys (or values) of a cache and the last `window` of the others.

    Returns (B, H, S', K) with at most first + window positions (Xiao et al. 2023).
    """
    rest = max(first, cache_BHSK.shape[2] - window)
    return torch.cat([cache_BHSK[:, :, :first], cache_BHSK[:, :, rest:]], dim=2)


# --8<-- [end:window]


# --8<-- [start:toy]
KINDS = 16


def find_payloads(B: int, T: int, window: int) -> tuple[Tensor, Tensor]:
    """Draw a task in which every third query has nothing to find.

    Position 0 is a start token. Each other one carries a payload of ±1 of some kind,
    and asks for the mean payload of another kind among the last `window` positions; the
    answer is 0 where there is none. Returns features (B, T, D) and answers (B, T).
    """
    asked_BT, kind_BT = torch.randint(KINDS, (2, B, T)).unbind(0)
    payload_BT = torch.randint(2, (B, T)) * 2.0 - 1
    payload_BT[:, 0] = 0
    found_BTT = asked_BT.unsqueeze(2) == kind_BT.unsqueeze(1)
    found_BTT = found_BTT & window_mask(T, T, window) & (payload_BT != 0).unsqueeze(1)
    total_BT = (found_BTT * payload_BT.unsqueeze(1)).sum(2)
    answer_BT = total_BT / found_BTT.sum(2).clamp_min(1)
    x_BTD = torch.cat(
        [
            F.one_hot(asked_BT, KINDS),
            F.one_hot(kind_BT, KINDS) * (payload_BT != 0).unsqueeze(2),
            torch.stack([payload_BT, payload_BT == 0], dim=2),
        ],
        dim=2,
    )
    return x_BTD, answer_BT


class Finder(nn.Module):
    """One head with values of size 1; its sink is learned, or absent."""

    def __init__(self, *, sink: bool) -> None:
        """Make projections from the features of the task."""
        super().__init__()
        self.to_q = nn.Linear(2 * KINDS + 2, 32)
        self.to_k = nn.Linear(2 * KINDS + 2, 32)
        self.to_v = nn.Linear(2 * KINDS + 2, 1)
        self.sink_1 = nn.Parameter(torch.zeros(1)) if sink else None

    def forward(self, x_BTD: Tensor, mask_TT: Tensor) -> Tensor:
        """Return an answer for each position (B, T)."""
        q_B1TK, k_B1TK, v_B1T1 = (
            to(x_BTD).unsqueeze(1) for to in (self.to_q, self.to_k, self.to_v)
        )
        mask_B1TT = mask_TT.expand(len(x_BTD), 1, *mask_TT.shape)
        if self.sink_1 is None:
            return attend(q_B1TK, k_B1TK, v_B1T1, mask_B1TT)[:, 0, :, 0]
        out_B1T1 = attend_with_sink(q_B1TK, k_B1TK, v_B1T1, self.sink_1, mask_B1TT)
        return out_B1T1[:, 0, :, 0]


def train(finder: Finder, steps: int = 300) -> Finder:
    """Train on short sequences, where the causal mask hides nothing of the past."""
    optimizer = torch.optim.Adam(finder.parameters(), lr=0.03)
    mask_TT = window_mask(16, 16, 16)
    for _ in range(steps):
        x_BTD, answer_BT = find_payloads(64, 16, 16)
        loss = (finder(x_BTD, mask_TT) - answer_BT).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return finder


@torch.no_grad()
def error(finder: Finder, T: int, first: int) -> float:
    """Return the root mean square error where the start has left a window of 16."""
    x_BTD, answer_BT = find_payloads(64, T, 16)
    out_BT = finder(x_BTD, window_mask(T, T, 16, first))
    return (out_BT - answer_BT)[:, -16:].square().mean().sqrt().item()


@torch.no_grad()
def start_weight(finder: Finder) -> tuple[float, float]:
    """Return the mean weight on the start token: of all, and where the answer is 0."""
    x_BTD, answer_BT = find_payloads(256, 16, 16)
    score_BTS = finder.to_q(x_BTD) @ finder.to_k(x_BTD).mT / math.sqrt(32)
    score_BTS = score_BTS.masked_fill(~window_mask(16, 16, 16), -math.inf)
    share_BT = torch.softmax(score_BTS, -1)[..., 0]
    zero_BT = (answer_BT == 0) & (torch.arange(16) > 0)
    return share_BT[:, 1:].mean().item(), share_BT[zero_BT].mean().item()


# --8<-- [end:toy]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    for name, score in (("one key fits", [4.0, -4.0, -4.0]), ("none fits", [-4.0] * 3)):
        score_1113 = torch.tensor(score).view(1, 1, 1, 3)
        plain_3 = torch.softmax(score_1113, -1).flatten()
        sunk_3 = sink_softmax(score_1113, torch.zeros(1)).flatten()
        print(
            f"{name:12}: softmax gives {plain_3.sum():.2f}, with a sink {sunk_3.sum():.2f}"
        )
    # --8<-- [end:first-look]

    # --8<-- [start:windows]
    print(window_mask(3, 8, window=3, first=2).int())
    cache_1181 = torch.arange(8.0).view(1, 1, 8, 1)
    print("kept:", evict(cache_1181, window=3, first=2).flatten().tolist())
    # --8<-- [end:windows]

    # --8<-- [start:stream]
    for seed in range(3):
        torch.manual_seed(seed)
        plain, sunk = train(Finder(sink=False)), train(Finder(sink=True))
        everywhere, zero = start_weight(plain)
        print(
            f"seed {seed}: start token {everywhere:.2f}, where the answer is 0 {zero:.2f};"
            f" error {error(plain, 16, 0):.3f},\n  window {error(plain, 128, 0):.3f},"
            f" window and start {error(plain, 128, 1):.3f},"
            f" learned sink and window {error(sunk, 128, 0):.3f}"
        )
    # --8<-- [end:stream]

    # --8<-- [start:cost]
    sizes, full, kept = [256, 1024, 4096, 16384], [], []
    for size in sizes:
        # 8 key/value heads of 64 in bfloat16, as in one layer of gpt-oss
        full.append(2 * 2 * 8 * 64 * size)
        kept.append(2 * 2 * 8 * 64 * min(size, 4 + 128))
    print(
        f"{full[0] / 256:.0f} bytes a token; 16384 tokens: {full[-1] / 2**20:.0f} MiB,"
    )
    print(f"4 first and a window of 128: {kept[-1] / 2**10:.0f} KiB")
    q_BHTK, sink_H = torch.randn(1, 4, 512, 64), torch.zeros(4)
    for name, call in (
        ("softmax", partial(attend, q_BHTK, q_BHTK, q_BHTK)),
        ("sink", partial(attend_with_sink, q_BHTK, q_BHTK, q_BHTK, sink_H)),
    ):
        print(f"peak of {name} at T = 512: {peak_bytes(call) / 2**20:.2f} MiB")
    plot_growth(sizes, {"full cache": (full, 1), "first and window": (kept, 0)})
    plt.ylabel("bytes in one layer")
    plt.show()
    # --8<-- [end:cost]

    # --8<-- [start:lone-maximum]
    for name, low in (("far below", -60.0), ("masked", -math.inf)):
        score_3, sink_1 = (
            torch.full((3,), low),
            torch.tensor([40.0], requires_grad=True),
        )
        part_3 = torch.exp(score_3 - score_3.max())
        weight_3 = part_3 / (part_3.sum() + torch.exp(sink_1 - score_3.max()))
        (grad_1,) = torch.autograd.grad(weight_3.sum(), sink_1)
        print(f"keys {name:9}: weights {weight_3[0]:.1f}, gradient {grad_1.item():.1f}")
    # --8<-- [end:lone-maximum]

    # --8<-- [start:plus-one]
    score_3 = torch.tensor([-4.0, -4.0, -4.0])
    for shift in (0.0, 10.0):
        moved_3 = score_3 + shift
        part_3 = torch.exp(moved_3 - moved_3.max())
        wrong, right = (
            part_3.sum() / (1 + part_3.sum()),
            1 / (1 + 1 / moved_3.exp().sum()),
        )
        print(
            f"scores of {moved_3[0]:2.0f}: 1 after the shift {wrong:.2f}, right {right:.2f}"
        )
    # --8<-- [end:plus-one]

    # --8<-- [start:blind-test]
    q_BH1K, k_BHSK = torch.randn(1, 4, 1, 64), torch.randn(1, 4, 4096, 64)
    plain_BH1K = attend(q_BH1K, k_BHSK, k_BHSK)
    for sink in (0.0, 8.0):
        sunk_BH1K = attend_with_sink(q_BH1K, k_BHSK, k_BHSK, torch.full((4,), sink))
        off = (sunk_BH1K - plain_BH1K).abs().max() / plain_BH1K.abs().max()
        print(f"sink {sink:.0f}: outputs differ by {off:.2%} of the largest")
    # --8<-- [end:blind-test]
