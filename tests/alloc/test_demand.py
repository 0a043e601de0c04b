"""Demand of attention rows."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonalloc.demand import demand_of_rows


def brute_force(row, rho):
    """Tries every set of weights, smallest first."""
    for count in range(1, len(row) + 1):
        if any(sum(chosen) >= rho - 1e-6 for chosen in itertools.combinations(row, count)):
            return count
    return len(row)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=9), st.sampled_from([0.1, 0.5, 0.8, 0.93, 0.99, 1.0]))
@settings(deadline=None, max_examples=150)
def test_equals_brute_force(counts, rho):
    row = [count / sum(counts) for count in counts]
    attention = torch.tensor([row, row[::-1]])
    assert demand_of_rows(attention, rho).tolist() == [brute_force(row, rho)] * 2


@pytest.mark.parametrize(("rho", "needed"), [(0.8, 80), (0.93, 93), (1.0, 100)])
def test_uniform_attention_needs_its_share(rho, needed):
    assert demand_of_rows(torch.full((3, 100), 0.01), rho).tolist() == [needed] * 3


def test_takes_arrays_and_empty_rows():
    assert demand_of_rows(np.array([[0.7, 0.2, 0.1]]), 0.8).tolist() == [2]
    assert demand_of_rows(torch.zeros(2, 0), 0.8).tolist() == [0, 0]
    assert demand_of_rows(torch.zeros(0, 4), 0.8).shape == (0,)


def test_a_row_that_never_reaches_rho_needs_all():
    assert demand_of_rows(torch.tensor([[0.1, 0.1]]), 0.8).tolist() == [2]


@pytest.mark.parametrize("rho", [0.0, 1.1, float("nan")])
def test_rho_out_of_range_is_refused(rho):
    with pytest.raises(ValueError, match="rho is"):
        demand_of_rows(torch.ones(1, 1), rho)
