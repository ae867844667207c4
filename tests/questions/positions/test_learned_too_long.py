"""The facts of the page on learned positions that are too long."""


def test_there_is_no_row(evidence):
    """The lookup raises."""
    assert "index out of range" in evidence.output


def test_unused_rows_stay(evidence):
    """The last 192 of 256 rows do not move."""
    assert evidence.names["still"] == 192


def test_late_rows_are_trained_little(evidence):
    """The first row is updated in each step, the 64th fewer than ten times."""
    first, middle, last = evidence.names["updates_any"][[0, 31, 63]].tolist()
    assert first == 200
    assert last < 10 < middle < first
