"""Several heads, several averages."""


def test_two_heads_fetch_two_places_and_one_a_blend(evidence):
    """Each of two heads sees one key."""
    assert "1 heads: output ['0.50', '0.00', '0.50', '0.00']" in evidence.output
    assert "2 heads: output ['1.00', '0.00', '1.00', '0.00']" in evidence.output


def test_splitting_changes_the_function(evidence):
    """By 66 % with 2 heads; the last change is that of 8."""
    assert evidence.names["change"] > 0.5
    assert "2 heads: 66% away" in evidence.output
