"""The facts that the page on merging states."""

import re

import pytest


def test_only_log_sum_exp_is_exact(evidence):
    """Merging by log-sum-exp is exact; by number or half and half is not."""
    errors = dict(
        re.findall(
            r"^(by [\w -]+?|half and half) *: error (\S+)", evidence.output, re.M
        )
    )
    assert float(errors["by log-sum-exp"]) < 1e-12
    assert float(errors["by number of keys"]) > 0.01
    assert float(errors["half and half"]) > 0.01


def test_shares_depend_on_the_query(evidence):
    """The share of 900 in 1000 keys is from 0.89 to 0.97, not 0.9."""
    shares = [float(x) for x in re.findall(r"'(0\.\d+)'", evidence.output)]
    assert min(shares) == pytest.approx(0.89, abs=0.01)
    assert max(shares) == pytest.approx(0.97, abs=0.01)


def test_the_order_does_not_matter(evidence):
    """Three orders, errors of rounding only."""
    errors = re.findall(r"in the order .*: error (\S+)", evidence.output)
    assert len(errors) == 3
    assert max(float(x) for x in errors) < 1e-12


def test_it_lies_between_the_maximum_and_log_s_above(evidence):
    """Equal scores give log 100, far apart ones give the maximum."""
    excess = [float(x) for x in re.findall(r"the maximum \+ (\S+)", evidence.output)]
    assert excess == sorted(excess, reverse=True)
    assert (excess[0], excess[-1]) == (4.61, 0.0)
