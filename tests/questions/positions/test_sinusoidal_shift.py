"""The facts of the page on shifting sinusoidal codes."""


def test_one_matrix_shifts_all_positions(evidence):
    """Fitted on the first 1000 positions, it holds at 5000."""
    assert evidence.names["off"]["sinusoidal"] < 1e-6


def test_a_random_table_has_no_such_matrix(evidence):
    """The same fit fails elsewhere."""
    assert evidence.names["off"]["random"] > 0.5


def test_projection_ends_pure_distance(evidence):
    """Dot products vary with the position once there is a projection."""
    assert evidence.names["spread"]["no projection"] < 1e-5
    assert evidence.names["spread"]["projected"] > 1
