"""Ragged inputs whose padding is poisoned, so that a result that reads it cannot pass."""

import pytest
import torch

from reasonalloc.ops.attend import Segments
from reasonalloc.scorers import Centres

POISON_CELL = -(2**40)
ROUND_HEAD_DIM = 3


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

    def centres(self, rows, query_heads, head_dim):
        """Centres of queries, with the frequencies of RoPE."""
        half = head_dim // 2
        return Centres(
            frequencies_F=10000 ** -(torch.arange(half, dtype=torch.float64) / half),
            centres_RQD=self.normal(rows, query_heads, head_dim),
            spreads_RQF=self.normal(rows, query_heads, half).abs(),
        )

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


class CompactionRound:
    """A round of ``num_requests`` requests that each give back the newest slots of a few.

    A request has ``slots`` slots of ``layers * heads`` cells, dealt at random to its lists, so that lists are
    ragged and a cell may serve any layer and head, as after many rounds.
    """

    def __init__(self, make, num_requests, layers, heads):
        self.num_requests = num_requests
        self.request_R = torch.randperm(num_requests * layers, generator=make.generator) % num_requests
        self.lists = {}
        self.kept, self.released = set(), set()
        self.num_cells = 0
        for request in range(num_requests):
            self._deal(make, request, layers, heads)
        self.pool_CD = make.normal(self.num_cells, ROUND_HEAD_DIM)
        self._tabulate(num_requests * layers, heads)

    def _deal(self, make, request, layers, heads):
        slots, given_back = (int(torch.randint(low, 6, (), generator=make.generator)) for low in (0, 0))
        total, stay = slots * layers * heads, max(slots - given_back, 0) * layers * heads
        cells = [self.num_cells + cell for cell in range(total)]
        self.num_cells += total
        self.released |= set(cells[stay:])
        rows = (self.request_R == request).nonzero().flatten().tolist()
        for cell in (cells[at] for at in torch.randperm(total, generator=make.generator).tolist()):
            row = rows[int(torch.randint(len(rows), (), generator=make.generator))]
            head = int(torch.randint(heads, (), generator=make.generator))
            self.lists.setdefault((row, head), []).append(cell)
        self.kept |= {cells[at] for at in torch.randperm(total, generator=make.generator)[:stay].tolist()}

    def _tabulate(self, rows, heads):
        width = max(map(len, self.lists.values()), default=0)
        # Padding holds an impossible cell that claims to be kept in a slot that stays.
        self.cells_RHN = torch.full((rows, heads, width), -(2**40))
        self.keep_RHN = torch.ones(rows, heads, width, dtype=torch.bool)
        self.releasable_RHN = torch.zeros(rows, heads, width, dtype=torch.bool)
        self.lengths_RH = torch.zeros(rows, heads, dtype=torch.int64)
        for (row, head), cells in self.lists.items():
            self.lengths_RH[row, head] = len(cells)
            self.cells_RHN[row, head, : len(cells)] = torch.tensor(cells)
            self.keep_RHN[row, head, : len(cells)] = torch.tensor([cell in self.kept for cell in cells])
            self.releasable_RHN[row, head, : len(cells)] = torch.tensor([cell in self.released for cell in cells])

    def arguments(self):
        return (
            self.cells_RHN,
            self.lengths_RH,
            self.keep_RHN,
            self.releasable_RHN,
            self.request_R,
            self.num_requests,
        )


@pytest.fixture(scope="session")
def Round():
    """The class of compaction inputs."""
    return CompactionRound


@pytest.fixture(scope="session")
def ragged():
    """The class of generators; tests choose the seed."""
    return Ragged
