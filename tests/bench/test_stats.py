"""Paired statistics against oracles of their own."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonserve.bench.accuracy.stats import compare, interval, mcnemar


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_two_sided_binomial_test(first, second):
    n = first + second
    chances = [math.comb(n, k) * 0.5**n for k in range(n + 1)]
    # Every outcome no likelier than the one seen.
    expected = math.fsum(chance for chance in chances if chance <= chances[first] * (1 + 1e-9))
    assert mcnemar(first, second) == pytest.approx(expected)


def test_mcnemar_of_published_figures():
    assert mcnemar(2, 13) == pytest.approx(0.0074, abs=1e-4)
    assert mcnemar(1, 8) == pytest.approx(0.0391, abs=1e-4)
    assert mcnemar(0, 0) == 1.0


def test_the_interval_is_near_the_normal_one_where_that_holds():
    values = [1.0] * 100 + [0.0] * 156
    mean, error = np.mean(values), np.std(values) / math.sqrt(len(values))
    low, high = interval(values)
    assert low == pytest.approx(mean - 1.96 * error, abs=0.01)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.01)
    assert interval(values) == (low, high)


def test_a_comparison_is_paired():
    first, second = [1, 1, 0, 1, 0, 1], [1, 0, 0, 0, 1, 0]
    found = compare(first, second)
    assert (found.only_first, found.only_second) == (3, 1)
    assert found.p_value == mcnemar(3, 1)
    assert found.difference == pytest.approx(1 / 3)
    assert found.low < found.difference < found.high
    same = compare(first, first)
    assert (same.difference, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="zip"):
        compare([1, 0], [1])
