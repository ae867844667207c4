"""What the mask of a prefix LM gives and takes."""


def test_the_prefix_sees_itself_whole(evidence):
    """And what follows is causal."""
    assert evidence.names["seen"] == [5, 5, 5, 5, 5, 6, 7, 8]


def test_targets_inside_the_prefix_are_visible(evidence):
    """All but that of its last token; none of the answer."""
    assert evidence.names["told_7"].tolist() == [True] * 4 + [False] * 3


def test_a_longer_answer_leaves_the_prefix_alone(evidence):
    """So it can be cached while generating."""
    assert evidence.names["gap"] < 1e-6


def test_a_longer_prefix_voids_the_cache(evidence):
    """Under a causal mask more prompt changes nothing."""
    moved = evidence.names["moved"]
    assert moved["causal"] < 1e-6
    assert 0.6 < moved["prefix"] < 0.8
