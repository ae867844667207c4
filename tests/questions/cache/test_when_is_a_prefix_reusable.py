"""The facts that the page on prefix caches states."""

import pytest


def test_deeper_keys_depend_on_the_prefix(evidence):
    """Another first token leaves the document's keys of layer 1, not of layer 2."""
    first, second = evidence.names["moved_L"].tolist()
    assert first < 1e-12
    assert second == pytest.approx(0.49, abs=0.02)


def test_reuse_ends_at_the_first_difference(evidence):
    """Positions before the first difference stay, none after it."""
    assert evidence.names["reusable"] == {0: 0, 4: 4, 11: 11, 12: 12}


def test_content_alone_gives_false_hits(evidence):
    """With two blocks swapped, 2 may be reused; by content alone it would be 4."""
    hits = evidence.names["hits"]
    found = {name: count for (name, chained), count in hits.items() if chained}
    assert list(found.values()) == [4, 3, 2, 0]
    assert hits["blocks swapped", False] == 4
