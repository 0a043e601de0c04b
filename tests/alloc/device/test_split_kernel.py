"""The kernel of the bounded split: the integers of the definition, bit for bit."""

import pytest
import torch

from reasonalloc.ops.split import reference, split_rows


def make_rows(make, rows, width, largest_bound):
    """Weights of widely different sizes, some zero or equal; every total that the bounds allow may come."""
    weights = torch.exp(make.normal(rows, width).double() * 20)
    weights[torch.rand(rows, width, generator=make.generator) < 0.3] = 0.0
    weights[: rows // 4] = 1.0
    lower, room = (torch.randint(0, largest_bound, (rows, width), generator=make.generator) for _ in range(2))
    share = torch.rand(rows, generator=make.generator, dtype=torch.float64)
    total = lower.sum(dim=1) + (room.sum(dim=1) * share).round().long()
    return weights, total, lower, lower + room


@pytest.mark.parametrize("width", [1, 8, 63])
@pytest.mark.parametrize("largest_bound", [1, 4, 10**6])
def test_equals_the_definition(ragged, device, width, largest_bound):
    arguments = make_rows(ragged(width), 4, width, largest_bound)
    shares = split_rows(*(argument.to(device) for argument in arguments))
    assert torch.equal(shares.cpu(), reference.split_rows(*arguments))


def test_ties_of_the_rounding_go_to_the_lower_index(device):
    """Thirds: two of three equal remainders round up."""
    bounds = torch.tensor([[0, 0, 0]]), torch.tensor([[9, 9, 9]])
    arguments = torch.ones(1, 3), torch.tensor([11]), *bounds
    assert split_rows(*(argument.to(device) for argument in arguments)).tolist() == [[4, 4, 3]]


def test_extreme_weights(device):
    weights = torch.tensor([[5e-324, 1e300, 3.0], [0.0, 0.0, 0.0], [1e-300, 1e-300, 0.0]], dtype=torch.float64)
    bounds = torch.zeros(3, 3).long(), torch.full((3, 3), 2**31 - 1)
    arguments = weights, torch.tensor([2**31 - 1, 100, 7]), *bounds
    shares = split_rows(*(argument.to(device) for argument in arguments))
    assert torch.equal(shares.cpu(), reference.split_rows(*arguments))


def test_no_rows_and_no_shares(device):
    for rows, width in ((0, 3), (2, 0)):
        none = torch.zeros(rows, width, device=device)
        totals = torch.zeros(rows, device=device).long()
        assert split_rows(none, totals, none.long(), none.long()).shape == (rows, width)
