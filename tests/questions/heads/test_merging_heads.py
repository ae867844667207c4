"""Merging heads."""

import torch


def test_only_transpose_and_flatten_keep_positions_apart(evidence):
    """The others move other rows."""
    moved = {name: rows.tolist() for name, rows in evidence.names["moved"].items()}
    assert moved["transpose, flatten"] == [5]
    assert moved["reshape alone"] == [1, 2, 4, 5]
    assert moved["transpose(-1, -2)"] == [0, 1, 2, 3, 4, 5]


def test_each_row_holds_one_position(evidence):
    """The tens digit is the position."""
    assert "flatten: [[0, 1, 100, 101], [10, 11, 110, 111]" in evidence.output


def test_view_refuses_a_transposed_tensor(evidence):
    """It says why."""
    assert "view size is not compatible" in evidence.output


def test_one_position_hides_all_mistakes_and_one_head_hides_one():
    """The pitfall: sizes of 1 in a test."""
    for shape, same in (((4, 1, 8), [True, True]), ((1, 6, 8), [True, False])):
        x_HTK = torch.randn(shape)
        right_TD = x_HTK.transpose(0, 1).flatten(1)
        wrong = (x_HTK.reshape(right_TD.shape), x_HTK.mT.reshape(right_TD.shape))
        assert [torch.equal(w_TD, right_TD) for w_TD in wrong] == same
