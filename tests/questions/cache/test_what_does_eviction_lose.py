"""The facts that the page on evicting from the cache states."""

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def demonstration():
    """Run the evidence once: no test changes what it left."""
    return run_main("snippets.questions.cache.what_does_eviction_lose")


def test_no_policy_wins_everywhere(demonstration):
    """H2O keeps what was looked at early, SnapKV what is at the end, nobody the rest."""
    found = demonstration.names["found"]
    best = {
        when: [
            name for name in demonstration.names["policies"] if found[name, when] > 0.8
        ]
        for when in ("early", "at the end", "afterwards")
    }
    assert best == {
        "early": ["heavy + recent"],
        "at the end": ["last queries"],
        "afterwards": [],
    }


def test_policies_by_position_never_keep_the_needle(demonstration):
    """Windows and sinks keep positions, whatever stands there."""
    found = demonstration.names["found"]
    for name in ("recent", "sinks + recent"):
        assert all(found[name, when] == 0 for when in demonstration.names["looking"])


def test_the_full_cache_finds_it(demonstration):
    """A question after the prompt puts 0.82 of its weight on the needle."""
    assert demonstration.names["whole"] == pytest.approx(0.82, abs=0.02)
