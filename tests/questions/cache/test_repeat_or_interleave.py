"""The facts that the page on repeat_interleave and repeat states."""


def test_repeat_alone_is_wrong(evidence):
    """Three ways agree with enable_gqa; repeat interleaves the groups."""
    assert max(evidence.names["off"].values()) < 1e-5
    lines = evidence.output.splitlines()
    right = [line for line in lines if "reads [0, 0, 0, 0, 1, 1, 1, 1], off" in line]
    assert len(right) == 3
    (wrong,) = (line for line in lines if line.startswith("repeat  "))
    assert "reads [0, 1, 0, 1, 0, 1, 0, 1]" in wrong
    assert float(wrong.rpartition(" ")[2]) > 2


def test_reordered_query_heads_hide_it(evidence):
    """With query heads in another order, repeat gives the right outputs."""
    assert evidence.names["order"] == [0, 4, 1, 5, 2, 6, 3, 7]
    assert evidence.names["gap"] < 1e-5


def test_repeat_means_two_things(evidence):
    """NumPy's repeat is PyTorch's repeat_interleave; PyTorch's repeat is tile."""
    assert list(evidence.names["found"].values()) == [
        [0, 0, 1, 1],
        [0, 1, 0, 1],
        [0, 0, 1, 1],
        [0, 1, 0, 1],
    ]


def test_flatten_copies_what_expand_did_not(evidence):
    """Expand is a view of 768 bytes; flattening it takes 3072."""
    assert "expand: 768 bytes, a view: True" in evidence.output
    assert "flatten: 3072 bytes, a view: False" in evidence.output
