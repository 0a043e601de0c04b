"""Compaction: moves the kept tail into the holes, so that the tail's slots become free."""

import torch
from torch import Tensor

from reasonalloc.ops import launch
from reasonalloc.ops.compact import vectorized
from reasonalloc.ops.compact.plan import Compacted, CompactionPlan
from reasonalloc.shapes import check_axes, check_dtype

__all__ = ["Compacted", "CompactionPlan", "apply_moves", "compact_cells", "plan_compaction"]


def compact_cells(
    k_pool_CD: Tensor,
    v_pool_CD: Tensor,
    cells_RHN: Tensor,
    lengths_RH: Tensor,
    keep_RHN: Tensor,
    releasable_RHN: Tensor,
    request_R: Tensor,
    num_requests: int,
) -> Compacted:
    """Moves kept cells out of the slots to be released, and gives the table that is true then.

    ``plan_compaction`` and ``apply_moves`` in one, with sizes that do not depend on the data: on an
    accelerator nothing waits for the device. Unequal holes and movers are therefore reported, not raised:
    a request moves as many cells as it has holes for, never into another's.

    Args:
        k_pool_CD: K of every cell, changed in place.
        v_pool_CD: V of every cell, changed in place.
        cells_RHN: int64 cell of each candidate, in order of true position; no cell twice.
        lengths_RH: int64.
        keep_RHN: bool.
        releasable_RHN: bool, the candidate lies in a slot that is given back.
        request_R: int64 request of each row, 0 to ``num_requests - 1``; rows in any order.
        num_requests: Number of requests.

    Returns:
        The table as wide as it came, lengths, and what could not be matched.

    Raises:
        ValueError: Shapes or dtypes do not agree.
    """
    check_axes(
        k_pool_CD=k_pool_CD,
        v_pool_CD=v_pool_CD,
        cells_RHN=cells_RHN,
        lengths_RH=lengths_RH,
        keep_RHN=keep_RHN,
        releasable_RHN=releasable_RHN,
        request_R=request_R,
    )
    check_dtype(torch.int64, cells_RHN=cells_RHN, lengths_RH=lengths_RH, request_R=request_R)
    check_dtype(torch.bool, keep_RHN=keep_RHN, releasable_RHN=releasable_RHN)
    arguments = k_pool_CD, v_pool_CD, cells_RHN, lengths_RH, keep_RHN, releasable_RHN, request_R, num_requests
    if launch.use_kernel(cells_RHN.device):
        from reasonalloc.ops.compact import kernel

        return kernel.compact_cells(*arguments)
    return vectorized.compact_cells(*arguments)


def plan_compaction(
    cells_RHN: Tensor,
    lengths_RH: Tensor,
    keep_RHN: Tensor,
    releasable_RHN: Tensor,
    request_R: Tensor,
    num_requests: int,
) -> CompactionPlan:
    """Matches kept cells of slots to be released with holes in slots that stay.

    A hole is a candidate that is neither kept nor releasable, a mover one that is both. A request
    that keeps exactly as many cells as its remaining slots have, and whose candidates cover those
    slots, has as many holes as movers. The k-th mover of a request goes to its k-th hole, both
    counted by row, head and position. Holes and movers are disjoint, so no move overlaps another.

    Moves and table width depend on the data: on an accelerator this waits for the device.

    Args:
        cells_RHN: int64 cell of each candidate, in order of true position.
        lengths_RH: int64.
        keep_RHN: bool.
        releasable_RHN: bool, the candidate lies in a slot that is given back.
        request_R: int64 request of each row, 0 to ``num_requests - 1``; rows in any order.
        num_requests: Number of requests.

    Returns:
        Moves, and the table of the kept cells after them.

    Raises:
        ValueError: Shapes or dtypes do not agree, or a request has not as many holes as movers.
    """
    check_axes(
        cells_RHN=cells_RHN,
        lengths_RH=lengths_RH,
        keep_RHN=keep_RHN,
        releasable_RHN=releasable_RHN,
        request_R=request_R,
    )
    check_dtype(torch.int64, cells_RHN=cells_RHN, lengths_RH=lengths_RH, request_R=request_R)
    check_dtype(torch.bool, keep_RHN=keep_RHN, releasable_RHN=releasable_RHN)
    return vectorized.plan_compaction(cells_RHN, lengths_RH, keep_RHN, releasable_RHN, request_R, num_requests)


def apply_moves(pool_CD: Tensor, src_M: Tensor, dst_M: Tensor) -> None:
    """Copies cells of a pool in place: ``pool[dst] = pool[src]``.

    Args:
        pool_CD: K or V of every cell.
        src_M: int64 cells to read.
        dst_M: int64 cells to write, none twice and none also a source.

    Raises:
        ValueError: Shapes or dtypes do not agree.
    """
    check_axes(pool_CD=pool_CD, src_M=src_M, dst_M=dst_M)
    check_dtype(torch.int64, src_M=src_M, dst_M=dst_M)
    pool_CD.index_copy_(0, dst_M, pool_CD.index_select(0, src_M))
