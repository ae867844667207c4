"""The facts of the page on where positions enter."""


def test_counts(evidence):
    """Once at the input, twice a layer, once a layer."""
    for line in ("added to the input: 1 times", "RoPE: 12 times", "ALiBi: 6 times"):
        assert line in evidence.output


def test_only_absolute_positions_feel_a_shift(evidence):
    """RoPE and ALiBi do not change when all positions move by 100."""
    moved = evidence.names["moved"]
    assert moved["added to the input"] > 0.01
    assert max(moved["RoPE"], moved["ALiBi"]) < 1e-5
