"""Cells per layer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonalloc.ops.budgets import layer_budgets, reference


@given(st.integers(0, 2**32), st.integers(0, 5), st.integers(1, 40), st.integers(1, 400), st.integers(0, 60))
@settings(deadline=None, max_examples=150)
def test_equals_the_reference_and_adds_up(seed, batch, layers, width, floor_cells):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(layers, generator=generator)
    available = torch.randint(0, width + 1, (batch, layers), generator=generator)
    total = (available.sum(dim=1) * torch.rand(batch, generator=generator)).round().long()
    least = torch.full((batch,), floor_cells)
    budgets = layer_budgets(weights, total, available, least)
    assert torch.equal(budgets, reference.layer_budgets(weights, total, available, least))
    assert torch.equal(budgets.sum(dim=1), total)
    assert (budgets <= available).all()


def test_a_first_round_is_held_to_what_a_layer_has():
    """Budget 4 per layer, 5 candidates each: the profile's 8 for layer 0 must wait for a later round."""
    weights, least = torch.tensor([2.0, 0.5, 0.5]), torch.tensor([1])
    assert layer_budgets(weights, torch.tensor([12]), torch.full((1, 3), 5), least).tolist() == [[5, 4, 3]]
    assert layer_budgets(weights, torch.tensor([12]), torch.full((1, 3), 99), least).tolist() == [[8, 2, 2]]


def test_equal_weights_are_the_uniform_rule():
    budgets = layer_budgets(torch.ones(3), torch.tensor([30, 31]), torch.full((2, 3), 99), torch.zeros(2).long())
    assert budgets.tolist() == [[10, 10, 10], [11, 10, 10]]


def test_upper_bounds_give_way_to_the_total():
    budgets = layer_budgets(torch.ones(2), torch.tensor([20]), torch.tensor([[1, 50]]), torch.tensor([4]), ceiling=1.0)
    assert budgets.tolist() == [[1, 19]]


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="available_BL has shape"):
        layer_budgets(torch.ones(2), torch.ones(1).long(), torch.ones(1, 3).long(), torch.ones(1).long())
