"""The facts that the page on evicting from the cache states."""

import pytest


def test_no_policy_wins_everywhere(evidence):
    """H2O keeps what was looked at early, SnapKV what is at the end, nobody the rest."""
    found = evidence.names["found"]
    best = {
        when: [name for name in evidence.names["policies"] if found[name, when] > 0.8]
        for when in ("early", "at the end", "afterwards")
    }
    assert best == {
        "early": ["heavy + recent"],
        "at the end": ["last queries"],
        "afterwards": [],
    }


def test_policies_by_position_never_keep_the_needle(evidence):
    """Windows and sinks keep positions, whatever stands there."""
    found = evidence.names["found"]
    for name in ("recent", "sinks + recent"):
        assert all(found[name, when] == 0 for when in evidence.names["looking"])


def test_the_full_cache_finds_it(evidence):
    """A question after the prompt puts 0.9 of its weight on the needle, on average."""
    assert evidence.names["whole"] == pytest.approx(0.9, abs=0.02)
