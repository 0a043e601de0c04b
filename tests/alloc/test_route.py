"""Cells per head."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonalloc.ops.route import reference, route_heads, uniform_heads

WINDOW = 2


def budgets_for(make, lengths):
    share = torch.rand(lengths.shape[0], generator=make.generator)
    return (lengths.sum(dim=1) * share).round().long()


@pytest.mark.parametrize("width", [1, 63, 130])
@pytest.mark.parametrize("heads", [1, 3, 8])
@pytest.mark.parametrize("levels", [0, 1])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_equals_the_reference(ragged, width, heads, levels, power):
    make = ragged(width * heads)
    lengths = make.lengths(9, heads, width=width)
    scores = make.scores(lengths, width, levels)
    budget = budgets_for(make, lengths)
    rules = {"power": power, "floor": 0.25, "ceiling": 2.0, "min_cells": WINDOW}
    counts = route_heads(scores, lengths, budget, **rules)
    assert torch.equal(counts, reference.route_heads(scores, lengths, budget, **rules))
    assert torch.equal(counts.sum(dim=1), budget)
    assert (counts <= lengths).all()


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 40), st.integers(0, 9))
@settings(deadline=None, max_examples=150)
def test_bounds_hold_wherever_they_can(ragged, seed, heads, width, min_cells):
    make = ragged(seed)
    lengths = make.lengths(4, heads, width=width)
    budget = budgets_for(make, lengths)
    counts = route_heads(make.scores(lengths, width, 1), lengths, budget, min_cells=min_cells)
    assert torch.equal(counts.sum(dim=1), budget)
    mean = budget[:, None] / heads
    least = torch.maximum((mean * 0.25).floor(), torch.tensor(min_cells)).clamp(max=mean.floor())
    assert (counts >= torch.minimum(least, lengths)).all()
    most = (mean * 2).ceil().minimum(lengths)
    within = (counts <= most).all(dim=1)
    assert (within | (most.sum(dim=1) < budget)).all()


def test_a_head_with_the_best_scores_gets_more():
    scores = torch.full((1, 3, 64), -1.0)
    scores[0, 2, :32] = 1.0
    lengths = torch.full((1, 3), 64)
    assert route_heads(scores, lengths, torch.tensor([32]), min_cells=2).tolist() == [[5, 5, 22]]
    # The 33rd highest score is one of the ties at -1, which count for every head.
    assert route_heads(scores, lengths, torch.tensor([33]), min_cells=2).tolist() == [[11, 11, 11]]


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_uniform_is_equal_as_far_as_lengths_allow(ragged, rows):
    make = ragged(rows)
    lengths = make.lengths(rows, 3, width=40)
    budget = budgets_for(make, lengths)
    counts = uniform_heads(lengths, budget, WINDOW)
    assert torch.equal(counts.sum(dim=1), budget)
    assert (counts <= lengths).all()
    level = counts.amax(dim=1, keepdim=True) if rows else counts
    assert ((counts >= level - 1) | (counts == lengths)).all()


def test_uniform_examples():
    lengths = torch.tensor([[10, 10, 10], [2, 10, 10]])
    assert uniform_heads(lengths, torch.tensor([11, 11]), WINDOW).tolist() == [[4, 4, 3], [2, 5, 4]]


def test_rules_out_of_range_are_refused():
    scores, lengths = torch.zeros(1, 2, 3), torch.ones(1, 2).long()
    with pytest.raises(ValueError, match=r"floor is 1\.5"):
        route_heads(scores, lengths, lengths[:, 0], floor=1.5, min_cells=1)
