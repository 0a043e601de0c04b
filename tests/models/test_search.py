"""The search for shares, on losses whose best split is known."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonserve.models.search import LEAST, MOST, search, search_heads


def test_it_comes_near_the_best_split_of_a_known_loss():
    needs = (1.6, 0.6, 0.5, 1.3)
    asked = []

    def loss(shares):
        asked.append(shares)
        return sum((share - need) ** 2 for share, need in zip(shares, needs, strict=True))

    found = search(loss, [1, 1, 1, 1], 80)
    assert len(asked) == found.evaluations == len(set(asked)) <= 80
    assert asked[0] == (1.0,) * 4
    assert found.uniform_loss == loss((1.0,) * 4)
    assert found.loss == loss(found.shares) < 0.1 * found.uniform_loss
    assert found.rises[0] > found.rises[3] > found.rises[1] > found.rises[2]


@given(
    sizes=st.lists(st.integers(1, 5), min_size=2, max_size=8),
    weights=st.lists(st.floats(-3, 3), min_size=8, max_size=8),
    limit=st.integers(9, 60),
)
@settings(deadline=None, max_examples=60)
def test_shares_keep_the_total_and_their_bounds_and_never_lose_more_than_equal_ones(sizes, weights, limit):
    def loss(shares):
        return math.fsum(weight * share for weight, share in zip(weights, shares, strict=False))

    found = search(loss, sizes, limit)
    assert math.fsum(n * share for n, share in zip(sizes, found.shares, strict=True)) == pytest.approx(sum(sizes))
    assert all(LEAST <= share <= MOST for share in found.shares)
    assert found.loss <= found.uniform_loss
    assert found.evaluations <= limit
    assert search(loss, sizes, limit) == found


def test_where_nothing_helps_shares_stay_equal():
    found = search(lambda shares: sum(abs(share - 1) for share in shares), [2, 3, 1], 50)
    assert found.shares == (1.0, 1.0, 1.0)


def test_heads_come_near_the_best_split_of_their_layer():
    needs = (1.5, 0.5, 1.0, 1.0, 0.7, 1.3)
    asked = []

    def loss(shares):
        asked.append(shares)
        return sum((share - need) ** 2 for share, need in zip(shares, needs, strict=True))

    found = search_heads(loss, 3, 2, 60)
    assert len(asked) == found.evaluations == len(set(asked)) <= 60
    assert asked[0] == (1.0,) * 6
    assert found.loss == loss(found.shares) < 0.1 * found.uniform_loss
    assert found.rises[0] > found.rises[5] > found.rises[2] > found.rises[4] > found.rises[1]


@given(
    layers=st.integers(1, 4),
    heads=st.integers(2, 4),
    weights=st.lists(st.floats(-3, 3), min_size=16, max_size=16),
    limit=st.integers(17, 60),
)
@settings(deadline=None, max_examples=60)
def test_heads_keep_their_layers_total(layers, heads, weights, limit):
    def loss(shares):
        return math.fsum(weight * share for weight, share in zip(weights, shares, strict=False))

    found = search_heads(loss, layers, heads, limit)
    for first in range(0, layers * heads, heads):
        assert math.fsum(found.shares[first : first + heads]) == pytest.approx(heads, abs=1e-4)
    assert all(LEAST <= share <= MOST for share in found.shares)
    assert found.loss <= found.uniform_loss
    assert len(found.rises) == layers * heads
    assert found.evaluations <= limit
    assert search_heads(loss, layers, heads, limit) == found
