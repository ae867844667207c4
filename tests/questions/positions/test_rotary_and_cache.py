"""The facts of the page on RoPE and a KV cache."""


def test_a_window_may_keep_rotated_keys(evidence):
    """Dropping old keys equals masking them."""
    assert evidence.names["gaps"]["window, rotated keys"] < 1e-10


def test_renumbering_breaks_rotated_keys(evidence):
    """Keys rotated for old positions do not fit new numbers."""
    assert evidence.names["gaps"]["renumbered, rotated keys"] > 0.1


def test_rotating_by_the_difference_repairs_them(evidence):
    """Rotations add up."""
    assert evidence.names["gaps"]["renumbered, rotated by the difference"] < 1e-10


def test_new_frequencies_need_another_turn(evidence):
    """Old keys do not fit a new base, and fit after the difference of angles."""
    assert evidence.names["gaps"]["new base, rotated keys"] > 0.01
    assert evidence.names["gaps"]["new base, rotated by the difference"] < 1e-10
