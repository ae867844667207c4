"""The facts that the page on caches shared by layers states."""

import pytest

from tests.running import run_main


@pytest.fixture
def demonstration():
    """Run the evidence."""
    return run_main("snippets.questions.cache.can_layers_share_a_cache")


def test_fewer_caches_decode_as_well(demonstration):
    """8 layers keep 8, 4 or 5 caches; decoding equals one pass in each case."""
    assert list(demonstration.names["caches"].values()) == [8, 4, 5]
    assert demonstration.names["gap"] < 1e-12


def test_only_one_cache_for_the_upper_half_exits_early(demonstration):
    """Upper layers may skip the prompt in YOCO, not in CLA."""
    assert demonstration.names["off"]["YOCO"] < 1e-12
    assert demonstration.names["off"]["CLA"] > 0.01
    assert "80 in full, 44 with early exit" in demonstration.output


def test_bytes_at_three_lengths(demonstration):
    """YOCO gains with length: 68 MiB against CLA's 64 at 1024, 576 against 8192."""
    room = {
        tokens: [number / 2**20 for number in numbers]
        for tokens, numbers in demonstration.names["room"].items()
    }
    assert room == {
        1024: [128, 64, 68],
        8192: [1024, 512, 96],
        131072: [16384, 8192, 576],
    }
