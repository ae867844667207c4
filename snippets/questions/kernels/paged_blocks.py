"""PagedAttention: any blocks, same result; what reserving wastes and blocks do not."""

# --8<-- [start:imports]
import random
from dataclasses import dataclass
from operator import attrgetter

import torch

# --8<-- [end:imports]
# isort: split
from snippets.decoding.paged import PagedCache, paged_attention
from snippets.foundations.scaled_dot_product import attend


# --8<-- [start:serve]
@dataclass
class Request:
    """One sequence: where it begins, the places it holds, its tokens now and at last."""

    start: int
    size: int
    now: int
    final: int


def first_hole(running: list[Request], size: int, places: int) -> int | None:
    """Return where `size` places in a row are free, or None."""
    end = 0
    for one in sorted(running, key=attrgetter("start")):
        if one.start - end >= size:
            return end
        end = one.start + one.size
    return end if places - end >= size else None


def serve(kind: str, places: int = 16384, steps: int = 4000) -> dict[str, float]:
    """Serve requests that grow by a token a step; return what fills the cache.

    A request ends at 1 to 2048 tokens. It gets `maximum` (2048 places in a row), its
    `final` length in a row (as if known), or `blocks` of 16 as it grows.
    """
    draw, running, held, sums = random.Random(0), [], 0, [0.0, 0.0, 0.0]
    final, full = draw.randint(1, 2048), False
    for step in range(steps):
        if not full:  # one may come in each step, until there is no room
            size = {"maximum": 2048, "final": final, "blocks": 16}[kind]
            if kind == "blocks":  # anywhere will do
                start = 0 if held + size <= places else None
            else:
                start = first_hole(running, size, places)
            if start is None:
                full = True
            else:
                running.append(Request(start, size, 0, final))
                final, held = draw.randint(1, 2048), held + size
        now = 0
        for one in running:
            one.now += 1
            now += one.now
            if one.now > one.size:
                one.size, held = one.size + 16, held + 16
        while held > places:  # the last to come has to wait
            last = running.pop()
            held, now = held - last.size, now - last.now
            final, full = last.final, False
        if step >= steps // 2:  # counted from here on
            for n, count in enumerate((now, held - now, places - held)):
                sums[n] += count / places / (steps - steps // 2)
        stay = []
        for one in running:
            if one.now < one.final:
                stay.append(one)
            else:
                held, full = held - one.size, False
        running = stay
    return dict(zip(("tokens", "held, empty", "free"), sums, strict=True))


# --8<-- [end:serve]

if __name__ == "__main__":
    # --8<-- [start:exact]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    cache = PagedCache(blocks=16, block_size=4, heads=2, key_size=8, value_size=8)
    cache.k_NCHK.fill_(99)  # what the last owner left
    whole = {name: [] for name in "abc"}
    for name in "abcabcacbb":  # they grow in turns, three tokens each
        pair_any = torch.randn(2, 3, 2, 8).unbind(0)
        cache.append(name, *pair_any)
        whole[name].append(torch.stack(pair_any))
    print("tables:", cache.tables)
    print("lengths:", cache.lengths)
    q_BHTK, gap = torch.randn(3, 2, 1, 8), []
    table_BM, length_B = cache.batch(["a", "b", "c"])
    out_BHTV = paged_attention(q_BHTK, cache.k_NCHK, cache.v_NCHV, table_BM, length_B)
    for b, name in enumerate("abc"):
        k_1HSK, v_1HSV = torch.cat(whole[name], 1).transpose(1, 2).unsqueeze(1)
        alone_1HTV = attend(q_BHTK[b : b + 1], k_1HSK, v_1HSV)
        gap.append((out_BHTV[b] - alone_1HTV[0]).abs().max().item())
    print("off from keys and values in a row:", *[f"{x:.0e}" for x in gap])
    assert max(gap) < 1e-6
    # --8<-- [end:exact]

    # --8<-- [start:fragments]
    torch.manual_seed(0)
    filled = {}
    for kind in ("maximum", "final", "blocks"):
        filled[kind] = serve(kind)
        print(f"{kind:8}", {name: f"{x:.0%}" for name, x in filled[kind].items()})
    assert filled["maximum"]["tokens"] < 0.4
    assert filled["final"]["tokens"] < 0.6
    assert filled["blocks"]["tokens"] > 0.95
    # --8<-- [end:fragments]
