"""The facts of the page on T5's buckets."""


def test_both_directions_share_the_buckets(evidence):
    """16 for the past; 0 to 7 have one each, the last begins at 91."""
    starts = evidence.names["starts"]["both ways"]
    assert starts[:9] == list(range(9))
    assert (len(starts), starts[9], starts[-1]) == (16, 12, 91)


def test_causal_has_all_for_the_past(evidence):
    """32 buckets, the last from 113."""
    assert len(evidence.names["starts"]["causal"]) == 32
    assert evidence.names["starts"]["causal"][-1] == 113


def test_clipping_ends_at_k(evidence):
    """17 kinds of past distance, one for all from 16."""
    assert (evidence.names["shaw"], evidence.names["last"]) == (17, 16)
