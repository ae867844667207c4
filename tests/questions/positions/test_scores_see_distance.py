"""The facts of the page on relative positions under RoPE."""

OFFSETS = (-5, 0, 1, 5)


def test_the_start_does_not_matter(evidence):
    """At each of four offsets, scores agree up to rounding."""
    assert max(evidence.names["spread"]["RoPE", offset] for offset in OFFSETS) < 1e-9


def test_the_offset_matters(evidence):
    """The identity would give one score for all offsets."""
    means = [evidence.names["mean"]["RoPE", offset] for offset in OFFSETS]
    assert min(abs(a - b) for a in means for b in means if a is not b) > 0.05


def test_the_sign_matters(evidence):
    """Five before and five after get other scores: m - n, not its absolute value."""
    mean = evidence.names["mean"]
    assert abs(mean["RoPE", 5] - mean["RoPE", -5]) > 1


def test_added_codes_feel_the_start(evidence):
    """With addition the same offset gives other scores elsewhere."""
    assert min(evidence.names["spread"]["added", offset] for offset in OFFSETS) > 1
