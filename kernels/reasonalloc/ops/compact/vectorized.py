"""All requests at once."""

import torch
from torch import Tensor

from reasonalloc.ops.compact.plan import CompactionPlan, unequal_counts_error
from reasonalloc.shapes import valid_mask


def plan_compaction(
    cells_RHN: Tensor,
    lengths_RH: Tensor,
    keep_RHN: Tensor,
    releasable_RHN: Tensor,
    request_R: Tensor,
    num_requests: int,
) -> CompactionPlan:
    """See ``reasonalloc.ops.compact.plan_compaction``."""
    # With the rows of a request side by side, flat order is the order of matching.
    order_R = request_R.argsort(stable=True)
    cells = cells_RHN[order_R]
    valid = valid_mask(lengths_RH[order_R], cells.shape[2])
    keep = keep_RHN[order_R] & valid
    releasable = releasable_RHN[order_R]
    movers = (keep & releasable).flatten().nonzero().squeeze(1)
    holes = (valid & ~keep & ~releasable).flatten().nonzero().squeeze(1)
    _check_counts(request_R[order_R], num_requests, holes, movers, max(cells.shape[1] * cells.shape[2], 1))

    flat = cells.flatten()
    src_M, dst_M = flat[movers], flat[holes]
    flat = flat.scatter(0, movers, dst_M)
    # Back to the caller's order of rows: order_R lists, for each sorted row, where it came from.
    moved_RHN = torch.empty_like(cells).index_copy_(0, order_R, flat.view_as(cells))
    kept_RHN = torch.empty_like(keep).index_copy_(0, order_R, keep)
    cells_RHK, kept_RH = _packed(moved_RHN, kept_RHN)
    return CompactionPlan(src_M=src_M, dst_M=dst_M, cells_RHK=cells_RHK, lengths_RH=kept_RH)


def _check_counts(
    sorted_request_R: Tensor, num_requests: int, holes: Tensor, movers: Tensor, candidates_per_row: int
) -> None:
    """A mover in another request's hole would be one tenant reading another's cache."""
    num_holes, num_movers = (
        sorted_request_R.new_zeros(num_requests).index_add_(
            0, sorted_request_R[places // candidates_per_row], torch.ones_like(places)
        )
        for places in (holes, movers)
    )
    if not torch.equal(num_holes, num_movers):
        first = int((num_holes != num_movers).nonzero()[0])
        raise unequal_counts_error(first, int(num_holes[first]), int(num_movers[first]))


def _packed(cells_RHN: Tensor, keep_RHN: Tensor) -> tuple[Tensor, Tensor]:
    """Drops what is not kept from each list, and the number that is left, ``[R, H]``."""
    kept_RH = keep_RHN.sum(dim=2)
    width = int(kept_RH.max()) if kept_RH.numel() else 0
    table_RHK = cells_RHN.new_zeros(*kept_RH.shape, width)
    # Both masks count the kept in the same row-major order.
    return table_RHK.masked_scatter_(valid_mask(kept_RH, width), cells_RHN[keep_RHN]), kept_RH
