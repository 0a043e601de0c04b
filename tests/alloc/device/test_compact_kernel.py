"""The compaction kernels."""

import pytest
import torch

from reasonalloc.ops.compact import compact_cells, kernel, reference


def assert_like_reference(device, k, v, *arguments):
    expected_pools = [pool.clone() for pool in (k, v)]
    expected = reference.compact_cells(*expected_pools, *arguments)
    pools = [pool.to(device) for pool in (k, v)]
    inputs = [value.to(device) if isinstance(value, torch.Tensor) else value for value in arguments]
    done = compact_cells(*pools, *inputs)
    for field in ("cells_RHN", "lengths_RH", "unmatched_B"):
        assert torch.equal(getattr(done, field).cpu(), getattr(expected, field)), field
    for pool, expected_pool in zip(pools, expected_pools, strict=True):
        assert torch.equal(pool.cpu(), expected_pool)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("num_requests", "layers", "heads"), [(1, 1, 1), (3, 2, 3), (2, 3, 4)])
def test_equals_the_reference(ragged, Round, device, seed, num_requests, layers, heads):
    round_ = Round(ragged(seed), num_requests, layers, heads)
    assert_like_reference(device, round_.pool_CD, -round_.pool_CD, *round_.arguments())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("width", "head_dim"), [(1, 64), (63, 20), (150, 96)])
def test_lists_longer_than_a_step(ragged, device, dtype, width, head_dim):
    """Random marks: holes and movers do not add up, and nobody crosses into another request."""
    make = ragged(width)
    lengths = make.lengths(5, 2, width=width)
    cells = make.cells(lengths, width, lengths.numel() * width)
    keep, tail = (make.normal(5, 2, width) > 0 for _ in range(2))
    k, v = (make.normal(lengths.numel() * width, head_dim).to(dtype) for _ in range(2))
    assert_like_reference(device, k, v, cells, lengths, keep, tail, torch.tensor([1, 0, 3, 1, 0]), 4)


def test_takes_views(ragged, device):
    make = ragged(1)
    lengths = make.lengths(3, 2, width=40)
    cells = make.cells(lengths, 40, 240).mT.contiguous().mT
    keep, tail = (torch.arange(40) % step == 0 for step in (2, 3))
    k, v = (make.normal(8, 240).T for _ in range(2))
    lists = lengths.T.contiguous().T, keep.expand(3, 2, 40), tail.expand(3, 2, 40)
    assert_like_reference(device, k, v, cells, *lists, torch.tensor([0, 0, 0]), 1)


def test_more_rows_than_a_step(device, monkeypatch):
    """9 requests of one list: cell 0 is a hole, cell 1 a mover."""
    monkeypatch.setattr(kernel, "_BLOCK_ROWS", 4)
    cells, request = torch.arange(18).view(9, 1, 2), torch.arange(9).flip(0)
    marks = torch.tensor([False, True]).expand(9, 1, 2)
    k, v = torch.arange(18.0)[:, None], -torch.arange(18.0)[:, None]
    assert_like_reference(device, k, v, cells, torch.full((9, 1), 2), marks, marks, request, 9)


def test_no_rows(device):
    none = torch.zeros(0, 3, 5)
    lists = none.long(), none[:, :, 0].long(), none.bool(), none.bool(), torch.zeros(0).long()
    assert_like_reference(device, torch.ones(2, 4), torch.ones(2, 4), *lists, 0)
