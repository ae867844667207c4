"""What FlashAttention changes."""

import pytest

from tests.running import run_main


@pytest.fixture
def page():
    """Run the evidence."""
    return run_main("snippets.questions.kernels.what_flash_changes")


def test_operations_stay(page):
    """Forward, without a mask."""
    assert page.names["flops"]["flash"] == page.names["flops"]["plain"]


def test_memory_becomes_linear(page):
    """The largest tensor doubles with the length; that of plain attention grows fourfold."""
    made = page.names["bytes_of"]
    assert made["plain", 1024] == 4 * made["plain", 512]
    assert made["flash", 1024] == 2 * made["flash", 512]


def test_the_result_is_exact(page):
    """Up to rounding in float64."""
    assert page.names["gap"] < 1e-12
