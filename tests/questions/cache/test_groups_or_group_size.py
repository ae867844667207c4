"""The facts that the page on the 8 of GQA-8 states."""


def test_eight_heads_of_keys_have_four_readers(evidence):
    """Of 32 query heads, 4 read a head of GQA-8; the other reading gives 8."""
    assert evidence.names["right"] == [0, 1, 2, 3]
    assert evidence.names["wrong"] == [0, 1, 2, 3, 4, 5, 6, 7]


def test_only_one_reading_makes_one_group_mqa(evidence):
    """G = 1 is MQA, as in the paper; a group size of 1 would be MHA."""
    assert "GQA-1 as G = 1: MQA 32 readers" in evidence.output
    assert "GQA-1 as H/G = 1: MHA 1 readers" in evidence.output


def test_the_readings_meet_at_64_heads_only(evidence):
    """The misread cache is half, equal and twice for 32, 64 and 128 query heads."""
    assert evidence.names["ratio"] == {"8B": 0.5, "70B": 1.0, "405B": 2.0}
