"""Compaction: survivors of the tail move into holes, and nothing else changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonalloc.ops.compact import apply_moves, compact_cells, plan_compaction, reference

rounds = st.tuples(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4))


@given(rounds)
@settings(deadline=None, max_examples=100)
def test_keys_follow_their_tokens_and_the_tail_is_free(ragged, Round, shape):
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
def test_equals_the_reference(ragged, Round, shape):
    arguments = Round(ragged(shape[0]), *shape[1:]).arguments()
    plan, expected = plan_compaction(*arguments), reference.plan_compaction(*arguments)
    for field in ("src_M", "dst_M", "cells_RHK", "lengths_RH"):
        assert torch.equal(getattr(plan, field), getattr(expected, field)), field


@given(rounds)
@settings(deadline=None, max_examples=100)
def test_compacting_in_one_step_is_planning_and_moving(ragged, Round, shape):
    round_ = Round(ragged(shape[0]), *shape[1:])
    plan = plan_compaction(*round_.arguments())
    k, v = round_.pool_CD, round_.pool_CD + 1
    expected = [pool.index_copy(0, plan.dst_M, pool[plan.src_M]) for pool in (k, v)]
    done = compact_cells(k, v, *round_.arguments())
    assert torch.equal(k, expected[0])
    assert torch.equal(v, expected[1])
    assert torch.equal(done.cells_RHN[:, :, : plan.cells_RHK.shape[2]], plan.cells_RHK)
    assert not done.cells_RHN[:, :, plan.cells_RHK.shape[2] :].any()
    assert torch.equal(done.lengths_RH, plan.lengths_RH)
    assert done.unmatched_B.tolist() == [0] * round_.num_requests


@pytest.mark.parametrize("compact", [compact_cells, reference.compact_cells])
def test_what_has_no_hole_stays_and_is_reported(compact):
    """Request 0 keeps two movers and has one hole, request 1 has a hole too many."""
    cells = torch.tensor([[[0, 1, 2]], [[3, 4, 5]]])
    keep = torch.tensor([[[False, True, True]], [[False, False, True]]])
    tail = torch.tensor([[[False, True, True]], [[False, False, True]]])
    k, v = torch.arange(6.0)[:, None], torch.arange(6.0)[:, None] * 10
    done = compact(k, v, cells, torch.tensor([[3], [3]]), keep, tail, torch.tensor([0, 1]), 2)
    assert done.cells_RHN.tolist() == [[[0, 2, 0]], [[3, 0, 0]]]
    assert done.unmatched_B.tolist() == [1, -1]
    assert k.flatten().tolist() == [1, 1, 2, 5, 4, 5]
    assert v.flatten().tolist() == [10, 10, 20, 50, 40, 50]


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
