"""Which corner the causal triangle stands in."""


def test_one_query_sees_one_key(evidence):
    """With is_causal a step of decoding returns the first value."""
    assert "one key of 6 was seen" in evidence.output


def test_a_chunk_needs_the_lower_right_corner(evidence):
    """Only there it equals the full pass."""
    assert "top left: keys per query [1, 2, 3]" in evidence.output
    assert "bottom right: keys per query [4, 5, 6], error 0" in evidence.output
