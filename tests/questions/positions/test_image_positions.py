"""The facts of the page on positions in images and videos."""


def test_a_shift_of_all_coordinates_changes_nothing(evidence):
    """Scores depend on the three differences."""
    assert evidence.names["shifted"] < 1e-10


def test_two_coordinates_tell_a_neighbor_from_a_new_row(evidence):
    """One coordinate cannot, since both are 1 apart."""
    assert evidence.names["flat"] < 1e-10
    assert abs(evidence.names["right"] - evidence.names["wrapped"]) > 0.1


def test_it_is_not_the_euclidean_distance(evidence):
    """(3, 4) and (5, 0) are equally far and get other scores."""
    assert evidence.names["apart"] > 0.1


def test_equal_coordinates_are_one(evidence):
    """M-RoPE of text is RoPE."""
    assert evidence.names["text"] < 1e-10
