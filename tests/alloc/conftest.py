"""Ragged inputs whose padding is poisoned, so that a result that reads it cannot pass."""

import pytest
import torch

POISON_CELL = -(2**40)


class Ragged:
    """Makes lists of lengths 0 to ``width``; the first is full, the second empty.

    Args:
        seed: Of the generator; equal seeds give equal inputs.
    """

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def lengths(self, *shape, width, least=0):
        lengths = torch.randint(least, width + 1, shape, generator=self.generator)
        for place, length in enumerate([width, least][: lengths.numel()]):
            lengths.view(-1)[place] = length
        return lengths

    def normal(self, *shape):
        return torch.randn(shape, generator=self.generator)

    def keys(self, lengths, width, head_dim):
        """Keys that share a direction, so that many are near-duplicates; NaN on padding."""
        return self.poisoned(self.normal(*lengths.shape, width, head_dim) + 0.8, lengths)

    def scores(self, lengths, width, levels=0):
        """Scores with ties if there are ``levels``, and an infinite window; NaN on padding."""
        scores = self.normal(*lengths.shape, width)
        if levels:
            scores = (scores * levels).round() / levels
        newest = torch.arange(width) >= lengths[..., None] - 2
        return self.poisoned(scores.masked_fill(newest, torch.inf), lengths)

    def cells(self, lengths, width, pool):
        """Distinct cells of a pool, in random places; out of range on padding."""
        cells = torch.randperm(pool, generator=self.generator)[: lengths.numel() * width]
        return self.poisoned(cells.view(*lengths.shape, width), lengths, POISON_CELL)

    def poisoned(self, values, lengths, poison=torch.nan):
        padding = torch.arange(values.shape[lengths.dim()]) >= lengths[..., None]
        values[padding] = poison
        return values


@pytest.fixture(scope="session")
def ragged():
    """The class of generators; tests choose the seed."""
    return Ragged
