"""Ragged inputs whose padding is poisoned, so that a result that reads it cannot pass."""

import pytest
import torch

from reasonalloc.ops.attend import Segments

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

    def segments(self, prefix, owned, tail, layers=2, heads=2, slots_dtype=torch.int32):
        """Requests of so many prefix and tail slots and at most so many owned cells per head; no owned ones if 0.

        Returns:
            Segments, and which cells of the pool some request reaches, as ``[C]`` bool.
        """
        batch, num_slots = len(owned), sum(prefix) + sum(owned) + sum(tail) + 1
        slots = torch.randperm(num_slots, generator=self.generator).split([*prefix, *owned, *tail, 1])
        width = max(map(sum, zip(prefix, owned, tail, strict=True)))
        slots_RN = torch.full((batch + 2, width), -(2**30), dtype=slots_dtype)
        slot_rows_B = torch.randperm(batch + 2, generator=self.generator)[:batch]
        table_rows_B = torch.randperm(batch, generator=self.generator).masked_fill(torch.tensor(owned) == 0, -1)
        cells_TLHK = torch.full((batch, layers, heads, max(owned)), POISON_CELL)
        owned_TLH = torch.full((batch, layers, heads), POISON_CELL)
        reached_LSH = torch.zeros(layers, num_slots, heads, dtype=torch.bool)
        for b in range(batch):
            ends, row = (slots[b], slots[2 * batch + b]), slots_RN[slot_rows_B[b]]
            row[: prefix[b]], row[prefix[b] + owned[b] :][: tail[b]] = ends
            reached_LSH[:, torch.cat(ends)] = True
            if owned[b]:
                lengths_LH = self.lengths(layers, heads, width=owned[b])
                place = slots[batch + b][:, None] * heads + torch.arange(heads) + num_slots * heads * layers // 2
                # Whichever layer and head a cell lies in, the table says whom it serves.
                cells = place.flatten()[torch.randperm(place.numel(), generator=self.generator)].split(owned[b])
                cells_LHK = torch.stack(cells).expand(layers, heads, owned[b])
                cells_TLHK[table_rows_B[b], :, :, : owned[b]] = self.poisoned(
                    cells_LHK.clone(), lengths_LH, POISON_CELL
                )
                owned_TLH[table_rows_B[b]] = lengths_LH
                reached_LSH.view(-1)[cells_LHK[torch.arange(owned[b]) < lengths_LH[..., None]]] = True
        starts = torch.tensor(prefix) + torch.tensor(owned)
        return Segments(
            slots_RN=slots_RN,
            slot_rows_B=slot_rows_B,
            prefix_B=torch.tensor(prefix),
            tail_start_B=starts,
            tail_end_B=starts + torch.tensor(tail),
            cells_TLHK=cells_TLHK,
            owned_TLH=owned_TLH,
            table_rows_B=table_rows_B,
            num_slots=num_slots,
        ), reached_LSH.flatten()

    def poisoned(self, values, lengths, poison=torch.nan):
        padding = torch.arange(values.shape[lengths.dim()]) >= lengths[..., None]
        values[padding] = poison
        return values


@pytest.fixture(scope="session")
def ragged():
    """The class of generators; tests choose the seed."""
    return Ragged
