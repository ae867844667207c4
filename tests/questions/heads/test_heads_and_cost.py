"""Cost and the number of heads."""


def test_parameters_and_flops_do_not_depend_on_heads(evidence):
    """One pair of numbers for all."""
    assert evidence.names["counted"] == {(1_048_576, 142_606_336)}


def test_scores_do(evidence):
    """H times as many."""
    assert evidence.names["scores"] == {1: 65_536, 8: 524_288, 64: 4_194_304}


def test_heads_of_full_size_cost_as_many_times(evidence):
    """Eight of them, eight times."""
    assert evidence.names["grown"][8] == 8 * evidence.names["grown"][1]
