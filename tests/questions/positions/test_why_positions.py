"""The facts of the page on why positions are needed."""


def test_without_positions_words_and_mean_do_not_move(evidence):
    """Both orders give the same vectors up to rounding in float64."""
    assert max(evidence.names["gaps"]["no positions"]) < 1e-12


def test_with_positions_both_move(evidence):
    """Positions tell the two sentences apart."""
    assert min(evidence.names["gaps"]["with positions"]) > 0.01
