"""The kernels of cells per head."""

import pytest
import torch

from reasonalloc.ops.route import reference, route_heads

RULES = {"floor": 0.25, "ceiling": 2.0, "min_cells": 2}


def assert_like_reference(device, *arguments, power=0.5):
    counts = route_heads(*(argument.to(device) for argument in arguments), power=power, **RULES)
    assert torch.equal(counts.cpu(), reference.route_heads(*arguments, power=power, **RULES))


def make_layers(make, rows, heads, width, levels):
    lengths = make.lengths(rows, heads, width=width)
    share = torch.rand(rows, generator=make.generator)
    share[0] = 0.0
    return make.scores(lengths, width, levels), lengths, (lengths.sum(dim=1) * share).round().long()


@pytest.mark.parametrize(("width", "heads"), [(1, 1), (63, 3), (130, 8)])
@pytest.mark.parametrize("levels", [0, 1])
def test_equals_the_reference(ragged, device, width, heads, levels):
    assert_like_reference(device, *make_layers(ragged(width * heads), 3, heads, width, levels))


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_powers(ragged, device, power):
    assert_like_reference(device, *make_layers(ragged(1), 2, 3, 40, 0), power=power)


def test_layers_longer_than_a_step(ragged, device):
    assert_like_reference(device, *make_layers(ragged(2), 2, 3, 4200, 1))


def test_takes_views_and_no_rows(ragged, device):
    scores, lengths, budget = make_layers(ragged(3), 4, 3, 20, 1)
    views = scores.mT.contiguous().mT, lengths.T.contiguous().T, torch.stack([budget, budget], dim=1)[:, 0]
    assert_like_reference(device, *views)
    assert_like_reference(device, scores[:0], lengths[:0], budget[:0])
