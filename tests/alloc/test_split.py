"""The bounded split, and its batched form."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonalloc.errors import InfeasibleSplitError
from reasonalloc.ops.split import reference, split_rows
from reasonalloc.split import bounded_split

WEIGHTS = st.one_of(
    st.sampled_from([0.0, 1.0, 1e-300, 5e-324, 1e300, 3.0]),
    st.floats(min_value=0, max_value=1e9, allow_nan=False),
)


@st.composite
def feasible_splits(draw, min_shares=1, max_shares=12):
    count = draw(st.integers(min_shares, max_shares))
    bound = st.integers(0, draw(st.sampled_from([3, 50, 10**6])))
    weights = draw(st.lists(WEIGHTS, min_size=count, max_size=count))
    lower = draw(st.lists(bound, min_size=count, max_size=count))
    upper = [least + draw(bound) for least in lower]
    total = draw(st.integers(sum(lower), sum(upper)))
    return weights, total, lower, upper


@given(feasible_splits())
@settings(deadline=None, max_examples=300)
def test_adds_up_and_keeps_the_bounds(split):
    weights, total, lower, upper = split
    shares = bounded_split(weights, total, lower, upper)
    assert sum(shares) == total
    assert all(least <= share <= most for least, share, most in zip(lower, shares, upper, strict=True))


@given(feasible_splits())
@settings(deadline=None, max_examples=300)
def test_is_proportional_between_the_bounds(split):
    """Shares strictly inside their bounds are within one unit of one common scale."""
    weights, total, lower, upper = split
    shares = bounded_split(weights, total, lower, upper)
    largest = max(weights)
    inside = [
        (share, weight / largest)
        for share, weight, least, most in zip(shares, weights, lower, upper, strict=True)
        if largest > 0 and least < share < most and weight / largest > 1e-6
    ]
    scale_low = max(((share - 1) / weight for share, weight in inside), default=0)
    scale_high = min(((share + 1) / weight for share, weight in inside), default=0)
    assert scale_low <= scale_high * (1 + 1e-9) + 1e-9


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=12), st.integers(0, 10**6))
@settings(deadline=None, max_examples=100)
def test_a_greater_weight_never_gets_less(weights, total):
    shares = bounded_split(weights, total, 0, total)
    for (light, small), (heavy, large) in itertools.pairwise(sorted(zip(weights, shares, strict=True))):
        assert small <= large or light == heavy


@pytest.mark.parametrize(
    ("weights", "total", "lower", "upper", "shares"),
    [
        ([4, 1, 1], 12, 1, 6, [6, 3, 3]),
        ([1, 1, 1], 7, 0, 7, [3, 2, 2]),
        ([1, 1, 1, 1], 6, 0, 6, [2, 2, 1, 1]),
        ([0, 0], 5, 0, 5, [3, 2]),
        ([1, 0], 5, 0, 5, [5, 0]),
        ([1, 0], 5, 0, [3, 9], [3, 2]),
        ([0.6, 0.3, 0.1], 10, 0, 10, [6, 3, 1]),
        ([2, 1], 9, [0, 5], 9, [4, 5]),
        ([1], 2**31 - 1, 0, 2**31 - 1, [2**31 - 1]),
        ([1, 1], 7, 0, 2**62, [4, 3]),
        ([], 0, 0, 0, []),
    ],
)
def test_examples(weights, total, lower, upper, shares):
    assert bounded_split(weights, total, lower, upper) == shares


@pytest.mark.parametrize(
    ("weights", "total", "lower", "upper", "words"),
    [
        ([1, 1], 5, 0, 2, "total is 5.*allow 0 to 4"),
        ([1, 1], 5, 3, 9, "total is 5.*allow 6 to 18"),
        ([1, 1], 5, [3, 0], [2, 9], "lower bound 0 is 3, above its upper bound 2"),
        ([], 1, 0, 0, "total is 1"),
    ],
)
def test_infeasible_bounds_are_refused(weights, total, lower, upper, words):
    with pytest.raises(InfeasibleSplitError, match=words):
        bounded_split(weights, total, lower, upper)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf, -math.inf])
def test_weights_that_mean_nothing_are_refused(weight):
    with pytest.raises(ValueError, match="weight 1 is"):
        bounded_split([1.0, weight], 3, 0, 3)


@pytest.mark.parametrize(
    ("total", "lower", "upper"), [(-1, 0, 1), (2**31, 0, 2**31), (1, -1, 1), (1, [0], 1), (1, 0, [1, 1, 1])]
)
def test_arguments_out_of_range_are_refused(total, lower, upper):
    with pytest.raises(ValueError, match="give"):
        bounded_split([1.0, 1.0], total, lower, upper)


@given(st.integers(1, 8).flatmap(lambda n: st.lists(feasible_splits(n, n), min_size=1, max_size=5)))
@settings(deadline=None, max_examples=200)
def test_rows_equal_the_definition_bit_for_bit(rows):
    weights = torch.tensor([row[0] for row in rows], dtype=torch.float64)
    total = torch.tensor([row[1] for row in rows])
    lower = torch.tensor([row[2] for row in rows])
    upper = torch.tensor([row[3] for row in rows])
    expected = reference.split_rows(weights, total, lower, upper)
    assert torch.equal(split_rows(weights, total, lower, upper), expected)


@pytest.mark.parametrize("rows", [0, 1, 63])
@pytest.mark.parametrize("count", [1, 3, 90])
def test_rows_of_any_shape(rows, count):
    generator = torch.Generator().manual_seed(rows * 100 + count)
    weights = torch.rand(count, rows, generator=generator).T  # not contiguous
    total = torch.randint(count, 2 * count + 1, (rows,), generator=generator)
    lower, upper = torch.ones(rows, count).long(), torch.full((rows, count), 2)
    expected = reference.split_rows(weights, total, lower, upper)
    assert torch.equal(split_rows(weights, total, lower, upper), expected)


def test_rows_of_the_wrong_shape_are_refused():
    two, three = torch.ones(1, 2), torch.ones(1, 3).long()
    with pytest.raises(ValueError, match="N is 3"):
        split_rows(two, torch.ones(1).long(), three, three)
