"""What FlashAttention changes."""


def test_operations_stay(evidence):
    """Forward, without a mask."""
    assert evidence.names["flops"]["flash"] == evidence.names["flops"]["plain"]


def test_memory_becomes_linear(evidence):
    """The largest tensor doubles with the length; that of plain attention grows fourfold."""
    made = evidence.names["bytes_of"]
    assert made["plain", 1024] == 4 * made["plain", 512]
    assert made["flash", 1024] == 2 * made["flash", 512]


def test_the_result_is_exact(evidence):
    """Up to rounding in float64."""
    assert evidence.names["gap"] < 1e-12
