"""Paged attention: SDPA on contiguous sequences as oracle; allocator, forks, waste."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from snippets.decoding.paged import PagedCache, paged_attention
from snippets.properties.error_budget import error_budget, largest_error
from snippets.properties.kit import gradient_flow, no_input_mutated
from tests.running import run_main


def filled(lengths, C=4, H=2, K=8, V=8, piece=3):
    """Return a cache with sequences appended in turns, and their keys and values."""
    cache = PagedCache(sum(-(-n // C) for n in lengths) + 2, C, H, K, V)
    dense = [(torch.randn(n, H, K), torch.randn(n, H, V)) for n in lengths]
    for start in range(0, max(lengths), piece):
        for name, (k, v) in enumerate(dense):
            if start < len(k):
                part = slice(start, start + piece)
                cache.append(str(name), k[part], v[part])
    return cache, dense


# --8<-- [start:equals-dense]
def test_equals_dense():
    """Lengths around the boundaries of blocks: each equals SDPA on its own sequence."""
    H, K, C, lengths = 2, 8, 4, (1, 3, 4, 5, 8, 11)
    cache = PagedCache(12, C, H, K, K)
    dense = [[torch.randn(n, H, K), torch.randn(n, H, K)] for n in lengths]
    for start in range(0, 12, 3):  # in turns, so that blocks interleave
        for name, (k, v) in zip("abcdef", dense, strict=True):
            if start < len(k):
                cache.append(name, k[start : start + 3], v[start : start + 3])
    q = torch.randn(6, H, 1, K)
    table, length = cache.batch(list("abcdef"))
    out = paged_attention(q, cache.k_NCHK, cache.v_NCHV, table, length)
    worst = 0.0
    for b, (k, v) in enumerate(dense):
        k, v = (x.transpose(0, 1).unsqueeze(0) for x in (k, v))
        peer = torch.nn.functional.scaled_dot_product_attention(q[b : b + 1], k, v)
        torch.testing.assert_close(out[b : b + 1], peer)
        worst = max(worst, (out[b : b + 1] - peer).abs().max().item())
    print("tables:", [row[row >= 0].tolist() for row in table])
    print(f"lengths {lengths}: off by at most {worst:.0e}")


# --8<-- [end:equals-dense]


# --8<-- [start:fork]
def test_fork_shares_until_written():
    """A fork costs no block; the first write copies one; the other reads what it did."""
    cache = PagedCache(8, 4, 1, 2, 2)
    cache.append("parent", torch.randn(6, 1, 2), torch.randn(6, 1, 2))
    cache.fork("parent", "child")
    assert cache.tables["child"] == cache.tables["parent"]
    assert len(cache.free) == 6
    before = cache.k_NCHK[cache.tables["parent"]].clone()
    cache.append("child", torch.ones(1, 1, 2), torch.ones(1, 1, 2))
    assert cache.k_NCHK[cache.tables["parent"]].equal(before)
    first, second = cache.tables["child"]
    assert first == cache.tables["parent"][0]
    assert second != cache.tables["parent"][1]
    assert cache.k_NCHK[second, :2].equal(before[1, :2])
    assert len(cache.free) == 5
    cache.append("parent", torch.ones(1, 1, 2), torch.ones(1, 1, 2))
    assert len(cache.free) == 5  # no longer shared: written in place
    print("tables after both went on:", cache.tables, "free:", len(cache.free))


# --8<-- [end:fork]


# --8<-- [start:waste]
def test_waste_is_below_one_block():
    """Whatever is appended, at most C - 1 places of a sequence stay empty."""
    for C in (1, 4, 16):
        cache = PagedCache(200, C, 1, 1, 1)
        for n in range(1, 40):
            cache.append(str(n % 3), torch.zeros(n % 5, 1, 1), torch.zeros(n % 5, 1, 1))
            for name, table in cache.tables.items():
                assert 0 <= len(table) * C - cache.lengths[name] <= C - 1
        used = sum(map(len, cache.tables.values()))
        assert used + len(cache.free) == 200
        print(f"C = {C:2}: {used * C - sum(cache.lengths.values())} places empty")


# --8<-- [end:waste]


@given(
    seed=st.integers(0, 999),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    T=st.integers(1, 3),
    C=st.integers(1, 5),
)
@example(seed=0, lengths=[4, 9, 2], T=2, C=4)
@example(seed=0, lengths=[5], T=3, C=1)
def test_equals_sdpa_on_any_shape(seed, lengths, T, C):
    """Several queries, causal; garbage in free blocks; sizes of key and value differ."""
    torch.manual_seed(seed)
    cache, dense = filled(lengths, C, H=2, K=3, V=4)
    for block in cache.free:
        cache.k_NCHK[block] = cache.v_NCHV[block] = math.nan
    q = torch.randn(len(lengths), 2, T, 3)
    names = [str(b) for b in range(len(lengths))]
    table, length = cache.batch(names)
    out = paged_attention(q, cache.k_NCHK, cache.v_NCHV, table, length)
    for b, (k, v) in enumerate(dense):
        k, v = (x.transpose(0, 1).unsqueeze(0) for x in (k, v))
        mask = torch.ones(T, lengths[b], dtype=torch.bool).tril(lengths[b] - T)
        args = q[b : b + 1], k, v
        exact = F.scaled_dot_product_attention(*[x.double() for x in args], mask)
        peer = F.scaled_dot_product_attention(*args, mask)
        assert largest_error(out[b : b + 1], exact) <= error_budget(peer, exact, 2)
    # Another order of the batch permutes the output, and nothing else.
    turned = cache.batch(names[::-1])
    again = paged_attention(q.flip(0), cache.k_NCHK, cache.v_NCHV, *turned)
    torch.testing.assert_close(again.flip(0), out)


steps = st.lists(
    st.tuples(
        st.sampled_from(["append", "fork", "release"]),
        st.sampled_from("abc"),
        st.sampled_from("abc"),
        st.integers(0, 5),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(steps)
def test_any_history(history):
    """After any appends, forks and releases every sequence reads as it was written."""
    cache, written, clock = PagedCache(12, 3, 1, 1, 1), {}, 0.0
    for what, one, other, n in history:
        if what == "append":
            new = torch.arange(clock, clock + n).reshape(n, 1, 1)
            try:
                cache.append(one, new, -new)
            except MemoryError:
                continue
            clock += n
            written[one] = written.get(one, []) + new.flatten().tolist()
        elif what == "fork" and one in written and other not in written:
            cache.fork(one, other)
            written[other] = list(written[one])
        elif what == "release" and one in written:
            cache.release(one)
            del written[one]
        for name, values in written.items():
            table, length = cache.tables[name], cache.lengths[name]
            assert cache.k_NCHK[table].flatten()[:length].tolist() == values
            assert (-cache.v_NCHV[table]).flatten()[:length].tolist() == values
            assert len(table) == -(-len(values) // 3)
        users = [sum(b in t for t in cache.tables.values()) for b in range(12)]
        assert users == cache.users
        assert sorted(cache.free) == [b for b in range(12) if users[b] == 0]


def test_last_place_of_a_block():
    """A length that fills its blocks takes no further one, until one more comes."""
    cache = PagedCache(4, 4, 1, 1, 1)
    cache.append("a", torch.zeros(4, 1, 1), torch.zeros(4, 1, 1))
    assert len(cache.tables["a"]) == 1
    cache.fork("a", "b")
    cache.append("b", torch.ones(1, 1, 1), torch.ones(1, 1, 1))
    assert len(cache.tables["b"]) == 2
    assert cache.tables["b"][0] == cache.tables["a"][0]  # full: nothing to copy
    assert len(cache.free) == 2


def test_no_block_left():
    """MemoryError before anything is changed; a release makes room."""
    cache = PagedCache(3, 2, 1, 1, 1)
    one = torch.ones(1, 1, 1)
    cache.append("a", one.expand(3, 1, 1), one.expand(3, 1, 1))
    cache.fork("a", "b")
    with pytest.raises(MemoryError, match=r"^2 blocks needed, 1 are free$"):
        cache.append("b", one.expand(2, 1, 1), one.expand(2, 1, 1))
    assert cache.tables["a"] == cache.tables["b"]
    assert cache.lengths == {"a": 3, "b": 3}
    cache.append("b", one[:0], one[:0])  # nothing written, nothing copied
    assert cache.tables["a"] == cache.tables["b"]
    cache.append("b", one, one)
    with pytest.raises(MemoryError, match=r"^1 blocks needed, 0 are free$"):
        cache.append("c", one, one)
    assert "c" not in cache.tables
    cache.release("b")
    cache.append("c", one, one)
    cache.release("a")
    cache.release("c")
    assert sorted(cache.free) == [0, 1, 2]


def test_nan_after_the_end_does_not_leak():
    """Places after the end, free blocks, stale tails of the table: forward, backward."""
    cache, _ = filled((5, 9), K=4, V=4)
    table, length = cache.batch(["0", "1"])
    q = torch.randn(2, 2, 1, 4)
    clean = paged_attention(q, cache.k_NCHK, cache.v_NCHV, table, length)
    assert table[0].tolist()[2:] == [-1]
    for stale in (0, table[1, 0].item(), 99, -7):
        for bad in (math.nan, math.inf):
            k, v = cache.k_NCHK.clone(), cache.v_NCHV.clone()
            for pool in (k, v):
                pool[table[0, 1], 1:] = pool[table[1, 2], 1:] = bad
                pool[cache.free] = bad
            other = table.clone()
            other[0, 2] = stale
            leaves = [x.clone().requires_grad_() for x in (q, k, v)]
            out = paged_attention(*leaves, other, length)
            torch.testing.assert_close(out, clean)
            grads = torch.autograd.grad(out.square().sum(), leaves)
            assert all(grad.isfinite().all() for grad in grads)


def test_more_queries_than_positions():
    """Queries before the first position see nothing: zeros."""
    cache, _ = filled((2,))
    q = torch.randn(1, 2, 4, 8)
    out = paged_attention(q, cache.k_NCHK, cache.v_NCHV, *cache.batch(["0"]))
    assert out[:, :, :2].eq(0).all()
    assert out[:, :, 2:].ne(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_error_in_every_dtype(dtype):
    """The error stays within what PyTorch's own kernel makes."""
    cache, _ = filled((37,), C=16, K=16, V=16)
    k, v = cache.k_NCHK.to(dtype), cache.v_NCHV.to(dtype)
    q, (table, length) = torch.randn(1, 2, 1, 16).to(dtype), cache.batch(["0"])
    rows = [x[table[0]].flatten(0, 1)[:37].transpose(0, 1)[None] for x in (k, v)]
    exact = F.scaled_dot_product_attention(q.double(), *[x.double() for x in rows])
    peer = F.scaled_dot_product_attention(q, *rows)
    ours = paged_attention(q, k, v, table, length)
    assert ours.dtype == dtype
    assert largest_error(ours, exact) <= error_budget(peer, exact, factor=2)


def test_huge_scores():
    """Scores of ±1e4 pick one key and stay finite."""
    k = torch.tensor([100.0, -100.0, 99.0, 0.0]).reshape(2, 2, 1, 1)
    v = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(2, 2, 1, 1)
    table, length = torch.tensor([[0, 1]]), torch.tensor([3])
    for sign, expected in ((1, 1.0), (-1, 2.0)):
        q = torch.full((1, 1, 1, 1), sign * 100.0)
        assert paged_attention(q, k, v, table, length).item() == expected


def test_gradients():
    """They reach query and blocks, agree with finite differences, change no input."""
    cache, _ = filled((5, 3), H=1, K=2, V=3)
    table, length = cache.batch(["0", "1"])
    blocks = sorted({b for row in table.tolist() for b in row if b >= 0})
    leaves = [torch.randn(2, 1, 1, 2), cache.k_NCHK[blocks], cache.v_NCHV[blocks]]
    near = torch.tensor(
        [[blocks.index(b) if b >= 0 else -1 for b in r] for r in table.tolist()]
    )

    def attend(q, k, v):
        return paged_attention(q, k, v, near, length)

    no_input_mutated(attend, *leaves)
    gradient_flow(attend, *leaves)
    leaves = [x.double().requires_grad_() for x in leaves]
    assert torch.autograd.gradcheck(attend, leaves)


def test_not_contiguous():
    """A transposed query gives the same."""
    cache, _ = filled((5, 3))
    q = torch.randn(2, 1, 2, 8).transpose(1, 2)
    args = cache.k_NCHK, cache.v_NCHV, *cache.batch(["0", "1"])
    torch.testing.assert_close(
        paged_attention(q, *args), paged_attention(q.contiguous(), *args)
    )


def test_bad_input_is_named():
    """What came and what was expected."""
    cache, _ = filled((5, 3))
    k, v, (table, length) = cache.k_NCHK, cache.v_NCHV, cache.batch(["0", "1"])
    q = torch.randn(2, 2, 1, 8)
    for args, message in (
        (
            (q[..., :7], k, v, table, length),
            r"query has heads and size \(2, 7\), expected \(2, 8\)",
        ),
        (
            (q[:, :1], k, v, table, length),
            r"query has heads and size \(1, 8\), expected \(2, 8\)",
        ),
        (
            (q, k, v[:1], table, length),
            r"value has blocks, places and heads \(1, 4, 2\), expected \(5, 4, 2\)",
        ),
        ((q, k, v, table[:1], length), "table has sequences 1, expected 2"),
        ((q, k, v, table, length[:1]), "length has sequences 1, expected 2"),
        ((q, k, v, table, length + 4), "length is 9, the table has room for 8"),
        ((q, k, v, table + 9, length), r"table names block \d+, expected 0 to 4"),
        (
            (q, k, v, table.clone().fill_diagonal_(5), length),
            "table names block 5, expected 0 to 4",
        ),
        ((q, k, v, table, length * 0 + 5), "table names block -1, expected 0 to 4"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            paged_attention(*args)
    paged_attention(q, k, v, table, torch.tensor([8, 4]))
    one = torch.zeros(1, 2, 8)
    for args, message in (
        ((one[..., :7], one), r"key has shape \(1, 2, 7\), expected \(1, 2, 8\)"),
        ((one, one[:, :1]), r"value has shape \(1, 1, 8\), expected \(1, 2, 8\)"),
        ((one, one[:0]), r"value has shape \(0, 2, 8\), expected \(1, 2, 8\)"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            cache.append("0", *args)
    for call in (
        lambda: cache.fork("x", "y"),
        lambda: cache.release("x"),
        lambda: cache.batch(["0", "x"]),
    ):
        with pytest.raises(ValueError, match=r"^'x' is not in the cache$"):
            call()
    with pytest.raises(ValueError, match=r"^'1' is in the cache already$"):
        cache.fork("0", "1")


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.decoding.paged").output
    assert "tables: {'a': [7, 6, 4], 'b': [5], 'c': [7, 6, 4]}" in out
    assert "c went on alone: [7, 6, 3] free: [0, 1, 2]" in out
    assert "(3, 2, 1, 16) lengths [10, 3, 11]" in out
    assert "2048 places reserved for each: 50.8% used" in out
    assert "blocks of 256:  89.0% used, 129.1 wasted a sequence" in out
    assert "blocks of  16:  99.3% used,   7.9 wasted a sequence" in out
    assert "16 samples:  63 blocks, without sharing 528" in out
    assert "lengths: garbage after the end of b moves the output by 0.00" in out
    assert "whole blocks: garbage after the end of b moves the output by 1.25" in out
    assert "parent has values [1.0, 1.0, 9.0]" in out
    assert "child has values [1.0, 1.0, 9.0]" in out
    assert "[8.0, 9.0, 10.0, 99.0]" in out
