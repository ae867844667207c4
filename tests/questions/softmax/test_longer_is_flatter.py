"""The facts that the page on length states."""

import re

import pytest


def test_a_fixed_lead_fades(evidence):
    """From 0.97 to 0.03, and the lead needed for 0.9 from 6.8 to 13.7."""
    rows = re.findall(r"^ *(\d+) +(0\.\d+) +(\d+\.\d)$", evidence.output, re.M)
    assert [float(x) for x in rows[0]] == pytest.approx([100, 0.97, 6.8], abs=0.01)
    assert [float(x) for x in rows[-1]] == pytest.approx(
        [100_000, 0.03, 13.7], abs=0.01
    )


def test_the_logarithm_keeps_it(evidence):
    """0.18 without, 0.99 with it, the same at the base length."""
    plain, scaled = evidence.names["plain"], evidence.names["scaled"]
    assert plain[1000] == pytest.approx(scaled[1000])
    assert plain[100_000] == pytest.approx(0.18, abs=0.01)
    assert scaled[100_000] == pytest.approx(0.99, abs=0.01)


def test_noise_spreads_in_proportion(evidence):
    """About 0.6 S keys; with the logarithm about 3.5, 2.7 and 2.2."""
    flat = evidence.names["flat"]
    for size, spread in flat.items():
        assert spread["plain"] / size == pytest.approx(0.6, abs=0.02)
    few = [spread["× log S"] for spread in flat.values()]
    assert few == pytest.approx([3.5, 2.7, 2.2], abs=0.4)
