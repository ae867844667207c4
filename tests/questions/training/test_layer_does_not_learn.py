"""Registered parameters."""


def test_a_list_registers_nothing(evidence):
    """2 of 6."""
    assert sorted(evidence.names["counts"].values()) == [2, 6]


def test_the_optimizer_skips_them_though_they_have_gradients(evidence):
    """Not moved at all."""
    moved = evidence.names["moved"]
    assert moved[list] == 0
    assert max(moved.values()) > 1


def test_a_block_without_projections_has_hardly_any_parameters(evidence):
    """128, where an ordinary one of the same width has 12D² and some more."""
    assert list(evidence.names["sizes"].values()) == [128, 49_984]
