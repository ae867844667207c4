"""Paged attention: keys and values in blocks anywhere, found through a block table."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.foundations.scaled_dot_product import attend

# isort: split
# --8<-- [start:tools]
from functools import partial

import matplotlib.pyplot as plt

# --8<-- [end:tools]
# isort: split
from snippets.properties.cost import plot_growth, seconds


# --8<-- [start:check-paged]
def check_paged(
    q_BHTK: Tensor, k_NCHK: Tensor, v_NCHV: Tensor, table_BM: Tensor, length_B: Tensor
) -> None:
    """Raise a ValueError that names the first argument that does not fit."""
    N, C, H, K = k_NCHK.shape
    B, M = table_BM.shape
    q, v = tuple(q_BHTK.shape), tuple(v_NCHV.shape)
    for what, came, expected in (
        ("query has heads and size", (q[1], q[3]), (H, K)),
        ("value has blocks, places and heads", v[:3], (N, C, H)),
        ("table has sequences", B, q[0]),
        ("length has sequences", len(length_B), q[0]),
    ):
        if came != expected:
            raise ValueError(f"{what} {came}, expected {expected}")
    if (longest := int(length_B.max())) > M * C:
        raise ValueError(f"length is {longest}, the table has room for {M * C}")
    used_BM = torch.arange(M) * C < length_B.unsqueeze(1)
    wrong_BM = used_BM & ((table_BM < 0) | (table_BM >= N))
    if wrong_BM.any():
        block = table_BM[wrong_BM][0].item()
        raise ValueError(f"table names block {block}, expected 0 to {N - 1}")


def check_new(k_THK: Tensor, v_THV: Tensor, k_NCHK: Tensor, v_NCHV: Tensor) -> None:
    """Raise a ValueError unless new keys and values fit into the blocks."""
    for name, shape, inside in (
        ("key", tuple(k_THK.shape), tuple(k_NCHK.shape[2:])),
        ("value", tuple(v_THV.shape), tuple(v_NCHV.shape[2:])),
    ):
        if shape != (expected := (len(k_THK), *inside)):
            raise ValueError(f"{name} has shape {shape}, expected {expected}")


def check_names(tables: dict, known: list[str], new: list[str]) -> None:
    """Raise a ValueError unless the cache has the known names and not the new ones."""
    for name in known:
        if name not in tables:
            raise ValueError(f"{name!r} is not in the cache")
    for name in new:
        if name in tables:
            raise ValueError(f"{name!r} is in the cache already")


# --8<-- [end:check-paged]


# --8<-- [start:paged-cache]
class PagedCache:
    """Keys and values of many sequences in N blocks of C places (Kwon et al. 2023, §4).

    Place c of block n holds `k_NCHK[n, c]` and `v_NCHV[n, c]`. `tables[name]` lists
    the blocks of a sequence in the order of its positions.
    """

    def __init__(
        self, blocks: int, block_size: int, heads: int, key_size: int, value_size: int
    ) -> None:
        """Begin with all blocks free."""
        self.k_NCHK = torch.zeros(blocks, block_size, heads, key_size)
        self.v_NCHV = torch.zeros(blocks, block_size, heads, value_size)
        self.free = list(range(blocks))
        self.users = [0] * blocks  # how many sequences have each block
        self.tables: dict[str, list[int]] = {}
        self.lengths: dict[str, int] = {}

    def take(self) -> int:
        """Return a block that was free, with one user."""
        block = self.free.pop()
        self.users[block] = 1
        return block

    def append(self, name: str, k_THK: Tensor, v_THV: Tensor) -> None:
        """Store T more positions of a sequence; a new name begins empty.

        Raises ValueError when sizes do not fit and MemoryError when too few blocks
        are free, both before anything is changed.
        """
        check_new(k_THK, v_THV, self.k_NCHK, self.v_NCHV)
        T, C = len(k_THK), self.k_NCHK.shape[1]
        table, length = self.tables.get(name, []), self.lengths.get(name, 0)
        # A block that begins half full is written on. Is it someone else's, too?
        shared = T > 0 and length % C > 0 and self.users[table[-1]] > 1
        needed = -(-(length + T) // C) - len(table) + shared
        if needed > len(self.free):
            raise MemoryError(f"{needed} blocks needed, {len(self.free)} are free")
        if shared:  # copy on write
            old, new = table[-1], self.take()
            self.k_NCHK[new], self.v_NCHV[new] = self.k_NCHK[old], self.v_NCHV[old]
            self.users[old] -= 1
            table[-1] = new
        for t in range(T):
            block, place = divmod(length + t, C)
            if block == len(table):
                table.append(self.take())
            self.k_NCHK[table[block], place] = k_THK[t]
            self.v_NCHV[table[block], place] = v_THV[t]
        self.tables[name], self.lengths[name] = table, length + T

    def fork(self, parent: str, child: str) -> None:
        """Begin a sequence with all positions of another, copying none of them.

        Raises ValueError when there is no parent, or a child already.
        """
        check_names(self.tables, [parent], [child])
        self.tables[child] = list(self.tables[parent])
        self.lengths[child] = self.lengths[parent]
        for block in self.tables[child]:
            self.users[block] += 1

    def release(self, name: str) -> None:
        """Forget a sequence; blocks without any other user become free."""
        check_names(self.tables, [name], [])
        del self.lengths[name]
        for block in self.tables.pop(name):
            self.users[block] -= 1
            if self.users[block] == 0:
                self.free.append(block)

    def batch(self, names: list[str]) -> tuple[Tensor, Tensor]:
        """Return the tables (B, M) of some sequences, -1 after the end, and lengths."""
        check_names(self.tables, names, [])
        tables = [self.tables[name] for name in names]
        longest = max(len(table) for table in tables)
        table_BM = torch.tensor([t + [-1] * (longest - len(t)) for t in tables])
        return table_BM, torch.tensor([self.lengths[name] for name in names])


# --8<-- [end:paged-cache]


# --8<-- [start:paged-attention]
def paged_attention(
    q_BHTK: Tensor, k_NCHK: Tensor, v_NCHV: Tensor, table_BM: Tensor, length_B: Tensor
) -> Tensor:
    """Attend from the last T positions of each sequence, causally.

    Row b of the table names the blocks of sequence b, which has `length_B[b]`
    positions; what the blocks hold after that is not read. Returns (B, H, T, V).
    Raises ValueError when sizes do not fit.
    """
    check_paged(q_BHTK, k_NCHK, v_NCHV, table_BM, length_B)
    B, H, T, _ = q_BHTK.shape
    block_BM = table_BM.clamp(0, len(k_NCHK) - 1)  # after the end any block will do
    k_BSHK = k_NCHK[block_BM].flatten(1, 2)
    v_BSHV = v_NCHV[block_BM].flatten(1, 2)
    S = k_BSHK.shape[1]
    pos_BT1 = (length_B.unsqueeze(1) - T + torch.arange(T)).unsqueeze(2)
    mask_BHTS = (torch.arange(S) <= pos_BT1).unsqueeze(1).expand(B, H, T, S)
    return attend(q_BHTK, k_BSHK.transpose(1, 2), v_BSHV.transpose(1, 2), mask_BHTS)


# --8<-- [end:paged-attention]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    cache = PagedCache(blocks=8, block_size=4, heads=2, key_size=16, value_size=16)
    for name, length in (("a", 6), ("b", 3), ("a", 4)):
        cache.append(name, torch.randn(length, 2, 16), torch.randn(length, 2, 16))
    cache.fork("a", "c")
    print("tables:", cache.tables, "lengths:", cache.lengths)
    cache.append("c", torch.randn(1, 2, 16), torch.randn(1, 2, 16))
    print("c went on alone:", cache.tables["c"], "free:", cache.free)
    query_BHTK = torch.randn(3, 2, 1, 16)
    table_BM, length_B = cache.batch(["a", "b", "c"])
    out_BHTV = paged_attention(
        query_BHTK, cache.k_NCHK, cache.v_NCHV, table_BM, length_B
    )
    print(tuple(out_BHTV.shape), "lengths", length_B.tolist())
    # --8<-- [end:first-look]

    # --8<-- [start:waste]
    length_P = torch.randint(1, 2049, (1000,))  # P = 1000 sequences
    total = length_P.sum().item()
    print(f"2048 places reserved for each: {total / (1000 * 2048):.1%} used")
    for size in (256, 64, 16, 1):
        blocks = (length_P + size - 1).div(size, rounding_mode="floor").sum().item()
        wasted = (blocks * size - total) / 1000
        used = total / (blocks * size)
        print(f"blocks of {size:3}: {used:6.1%} used, {wasted:5.1f} wasted a sequence")
    # --8<-- [end:waste]

    # --8<-- [start:sharing]
    for samples in (1, 4, 16):
        shared = PagedCache(500, 16, 1, 8, 8)
        shared.append("0", torch.zeros(500, 1, 8), torch.zeros(500, 1, 8))
        for n in range(1, samples):
            shared.fork("0", str(n))
        for n in range(samples):
            shared.append(str(n), torch.zeros(20, 1, 8), torch.zeros(20, 1, 8))
        print(f"{samples:2} samples: {500 - len(shared.free):3} blocks", end=", ")
        print(f"without sharing {samples * 33}")
    # --8<-- [end:sharing]

    # --8<-- [start:growth]
    def measure(length: int) -> tuple[float, float]:
        """Time one more position: with `torch.cat`, and in blocks."""
        new_THK, old_SHK = torch.randn(1, 4, 32), torch.randn(length, 4, 32)
        paged = PagedCache(length // 16 + 50, 16, 4, 32, 32)
        paged.append("a", old_SHK, old_SHK)
        append = partial(paged.append, "a", new_THK, new_THK)
        cat = partial(torch.cat, (old_SHK, new_THK))  # keys, and the same for values
        return tuple(min(seconds(call) for _ in range(9)) for call in (cat, append))

    lengths = [2048, 4096, 8192, 16384]
    dense, blocked = zip(*map(measure, lengths), strict=True)
    plot_growth(lengths, {"torch.cat": (dense, 1), "in blocks": (blocked, 0)})
    plt.ylabel("seconds for one more position")
    plt.show()
    # --8<-- [end:growth]

    # --8<-- [start:picture]
    owner_NC = torch.zeros(8, 4)
    for number, name in enumerate(("a", "b", "c"), start=1):
        for position in range(cache.lengths[name]):
            block, place = divmod(position, 4)
            where = cache.tables[name][block], place
            owner_NC[where] = 4 if owner_NC[where] else number
    _, axis = plt.subplots()
    image = axis.imshow(owner_NC.cpu().numpy(), cmap="viridis")
    axis.set(xlabel="place in the block", ylabel="block")
    plt.colorbar(image, ticks=range(5)).set_ticklabels(
        ["free", "a", "b", "c", "a and c"]
    )
    plt.show()
    # --8<-- [end:picture]

    # --8<-- [start:last-block]
    dirty_NCHK = cache.k_NCHK.clone()
    dirty_NCHK[table_BM[1, 0], 3] = 30.0  # b has 3 positions in 4 places
    full_B = (length_B + 3).div(4, rounding_mode="floor") * 4
    for name, end_B in (("lengths", length_B), ("whole blocks", full_B)):
        before_BHTV, after_BHTV = (
            paged_attention(query_BHTK, k_NCHK, cache.v_NCHV, table_BM, end_B)
            for k_NCHK in (cache.k_NCHK, dirty_NCHK)
        )
        moved = (after_BHTV - before_BHTV).abs().max().item()
        print(f"{name}: garbage after the end of b moves the output by {moved:.2f}")
    # --8<-- [end:last-block]

    # --8<-- [start:no-copy]
    careless = PagedCache(blocks=8, block_size=4, heads=1, key_size=1, value_size=1)
    careless.append("parent", torch.ones(2, 1, 1), torch.ones(2, 1, 1))
    careless.fork("parent", "child")
    careless.users = [1] * 8  # nobody counts: nothing seems shared
    for name, value in (("parent", 5.0), ("child", 9.0)):
        careless.append(
            name, torch.full((1, 1, 1), value), torch.full((1, 1, 1), value)
        )
    for name, table in careless.tables.items():
        print(name, "has values", careless.v_NCHV[table[0], :3].flatten().tolist())
    # --8<-- [end:no-copy]

    # --8<-- [start:minus-one]
    pool_34 = torch.arange(12.0).reshape(3, 4)
    for slot in (5, -1):  # -1: of a row that only fills the batch up
        pool_34[slot // 4, slot % 4] = 99
        print(f"written to slot {slot:2}:", pool_34.tolist())
    # --8<-- [end:minus-one]
