"""Compaction: survivors of the tail move into holes, and nothing else changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonalloc.ops.compact import apply_moves, plan_compaction, reference

HEAD_DIM = 3


class Round:
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
        self.pool_CD = make.normal(self.num_cells, HEAD_DIM)
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


rounds = st.tuples(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4))


@given(rounds)
@settings(deadline=None, max_examples=100)
def test_keys_follow_their_tokens_and_the_tail_is_free(ragged, shape):
    round_ = Round(ragged(shape[0]), *shape[1:])
    plan = plan_compaction(*round_.arguments())
    before = round_.pool_CD.clone()
    apply_moves(round_.pool_CD, plan.src_M, plan.dst_M)
    seen = []
    for row, head in torch.cartesian_prod(*map(torch.arange, round_.lengths_RH.shape)).tolist():
        old = [cell for cell in round_.lists.get((row, head), []) if cell in round_.kept]
        new = plan.cells_RHK[row, head, : plan.lengths_RH[row, head]]
        assert torch.equal(round_.pool_CD[new], before[old])
        assert not plan.cells_RHK[row, head, plan.lengths_RH[row, head] :].any()
        seen += new.tolist()
    assert len(seen) == len(set(seen)) == len(round_.kept)
    assert not round_.released & set(seen)
    assert not set(plan.src_M.tolist()) & set(plan.dst_M.tolist())


@given(rounds)
@settings(deadline=None, max_examples=100)
def test_equals_the_reference(ragged, shape):
    arguments = Round(ragged(shape[0]), *shape[1:]).arguments()
    plan, expected = plan_compaction(*arguments), reference.plan_compaction(*arguments)
    for field in ("src_M", "dst_M", "cells_RHK", "lengths_RH"):
        assert torch.equal(getattr(plan, field), getattr(expected, field)), field


def test_example():
    """Slots 0 and 1 stay, 2 is given back; one head, one layer: token 1 dies, token 2 takes its place."""
    cells = torch.tensor([[[0, 1, 2]]])
    keep, tail = torch.tensor([[[True, False, True]]]), torch.tensor([[[False, False, True]]])
    plan = plan_compaction(cells, torch.tensor([[3]]), keep, tail, torch.tensor([0]), 1)
    assert (plan.src_M.tolist(), plan.dst_M.tolist()) == ([2], [1])
    assert plan.cells_RHK.tolist() == [[[0, 1]]]


@pytest.mark.parametrize("planner", [plan_compaction, reference.plan_compaction])
def test_a_hole_of_another_request_is_never_filled(planner):
    """Request 0 keeps one cell too many, request 1 one too few: totals agree, requests do not."""
    cells = torch.tensor([[[0, 1]], [[2, 3]]])
    keep, tail = torch.tensor([[[True, True]], [[False, False]]]), torch.tensor([[[False, True]], [[False, True]]])
    with pytest.raises(ValueError, match="request 0 has 0 holes and 1 cells to move"):
        planner(cells, torch.tensor([[2], [2]]), keep, tail, torch.tensor([0, 1]), 2)


def test_no_rows():
    none = torch.zeros(0, 3, 5)
    plan = plan_compaction(none.long(), none[:, :, 0].long(), none.bool(), none.bool(), torch.zeros(0).long(), 0)
    assert plan.cells_RHK.shape == (0, 3, 0)
    assert plan.src_M.tolist() == []


def test_moves_reach_cells_of_a_view():
    pool = torch.arange(24.0).view(4, 2, 3)
    apply_moves(pool.view(8, 3), torch.tensor([7]), torch.tensor([0]))
    assert pool[0, 0].tolist() == [21, 22, 23]
    with pytest.raises(ValueError, match="so M is 2"):
        apply_moves(pool.view(8, 3), torch.tensor([7]), torch.tensor([0, 1]))
