"""All requests at once."""

import torch
from torch import Tensor

from reasonalloc.ops.compact.plan import Compacted, CompactionPlan, unequal_counts_error
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
    """See ``reasonalloc.ops.compact.compact_cells``."""
    order_R = request_R.argsort(stable=True)
    cells = cells_RHN[order_R]
    valid = valid_mask(lengths_RH[order_R], cells.shape[2])
    keep, releasable = keep_RHN[order_R] & valid, releasable_RHN[order_R]
    request = request_R[order_R][:, None, None].expand_as(cells)
    holes, num_holes_B, rank_of_hole = _ranked(valid & ~keep & ~releasable, request, num_requests)
    movers, num_movers_B, rank_of_mover = _ranked(keep & releasable, request, num_requests)
    holes = holes[rank_of_hole < num_movers_B[request.flatten()[holes]]]
    movers = movers[rank_of_mover < num_holes_B[request.flatten()[movers]]]

    flat = cells.flatten()
    src_M, dst_M = flat[movers], flat[holes]
    for pool_CD in (k_pool_CD, v_pool_CD):
        pool_CD.index_copy_(0, dst_M, pool_CD.index_select(0, src_M))
    flat[movers] = dst_M
    moved_RHN = torch.empty_like(cells).index_copy_(0, order_R, flat.view_as(cells))
    kept_RHN = torch.empty_like(keep).index_copy_(0, order_R, keep)
    table_RHN, kept_RH = _packed(moved_RHN, kept_RHN, cells.shape[2])
    return Compacted(cells_RHN=table_RHN, lengths_RH=kept_RH, unmatched_B=num_movers_B - num_holes_B)


def _ranked(marked: Tensor, request: Tensor, num_requests: int) -> tuple[Tensor, Tensor, Tensor]:
    """Flat places of what is marked, its number per request, and the rank of each place within its request."""
    places = marked.flatten().nonzero().squeeze(1)
    owner = request.flatten()[places]
    counts_B = owner.new_zeros(num_requests).index_add_(0, owner, torch.ones_like(owner))
    first_B = counts_B.cumsum(0) - counts_B
    return places, counts_B, torch.arange(len(places), device=places.device) - first_B[owner]


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


def _packed(cells_RHN: Tensor, keep_RHN: Tensor, width: int | None = None) -> tuple[Tensor, Tensor]:
    """Drops what is not kept from each list, and the number that is left, ``[R, H]``; no wider than needed."""
    kept_RH = keep_RHN.sum(dim=2)
    if width is None:
        width = int(kept_RH.max()) if kept_RH.numel() else 0
    table_RHK = cells_RHN.new_zeros(*kept_RH.shape, width)
    # Both masks count the kept in the same row-major order.
    return table_RHK.masked_scatter_(valid_mask(kept_RH, width), cells_RHN[keep_RHN]), kept_RH
