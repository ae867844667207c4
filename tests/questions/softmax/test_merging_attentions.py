"""The facts that the page on merging states."""

import re

import pytest

from tests.running import run_main


@pytest.fixture(scope="module")
def output():
    """Run the evidence."""
    return run_main("snippets.questions.softmax.merging_attentions").output


def test_only_log_sum_exp_is_exact(output):
    """Merging by log-sum-exp is exact; by number or half and half is not."""
    errors = dict(
        re.findall(r"^(by [\w -]+?|half and half) *: error (\S+)", output, re.M)
    )
    assert float(errors["by log-sum-exp"]) < 1e-12
    assert float(errors["by number of keys"]) > 0.01
    assert float(errors["half and half"]) > 0.01


def test_shares_depend_on_the_query(output):
    """The share of 900 in 1000 keys is from 0.89 to 0.97, not 0.9."""
    shares = [float(x) for x in re.findall(r"'(0\.\d+)'", output)]
    assert min(shares) == pytest.approx(0.89, abs=0.01)
    assert max(shares) == pytest.approx(0.97, abs=0.01)


def test_the_order_does_not_matter(output):
    """Three orders, errors of rounding only."""
    errors = re.findall(r"in the order .*: error (\S+)", output)
    assert len(errors) == 3
    assert max(float(x) for x in errors) < 1e-12


def test_it_lies_between_the_maximum_and_log_s_above(output):
    """Equal scores give log 100, far apart ones give the maximum."""
    excess = [float(x) for x in re.findall(r"the maximum \+ (\S+)", output)]
    assert excess == sorted(excess, reverse=True)
    assert (excess[0], excess[-1]) == (4.61, 0.0)
