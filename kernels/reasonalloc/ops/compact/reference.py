"""One candidate at a time."""

import torch
from torch import Tensor

from reasonalloc.ops.compact.plan import Compacted, CompactionPlan, unequal_counts_error


def plan_compaction(
    cells_RHN: Tensor,
    lengths_RH: Tensor,
    keep_RHN: Tensor,
    releasable_RHN: Tensor,
    request_R: Tensor,
    num_requests: int,
) -> CompactionPlan:
    """See ``reasonalloc.ops.compact.plan_compaction``."""
    src: list[int] = []
    dst: list[int] = []
    for request in range(num_requests):
        holes, movers = _holes_and_movers(cells_RHN, lengths_RH, keep_RHN, releasable_RHN, request_R == request)
        if len(holes) != len(movers):
            raise unequal_counts_error(request, len(holes), len(movers))
        src += movers
        dst += holes
    cells_RHK, kept_RH = _new_table(cells_RHN, lengths_RH, keep_RHN, dict(zip(src, dst, strict=True)))
    return CompactionPlan(
        src_M=torch.tensor(src, dtype=torch.int64),
        dst_M=torch.tensor(dst, dtype=torch.int64),
        cells_RHK=cells_RHK,
        lengths_RH=kept_RH,
    )


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
    moved_to: dict[int, int] = {}
    unmatched_B = torch.zeros(num_requests, dtype=torch.int64)
    for request in range(num_requests):
        holes, movers = _holes_and_movers(cells_RHN, lengths_RH, keep_RHN, releasable_RHN, request_R == request)
        unmatched_B[request] = len(movers) - len(holes)
        moved_to |= dict(zip(movers, holes, strict=False))
    for pool_CD in (k_pool_CD, v_pool_CD):
        for src, dst in moved_to.items():
            pool_CD[dst] = pool_CD[src]
    cells_RHK, kept_RH = _new_table(cells_RHN, lengths_RH, keep_RHN, moved_to)
    cells_RHN = torch.zeros_like(cells_RHN)
    cells_RHN[:, :, : cells_RHK.shape[2]] = cells_RHK
    return Compacted(cells_RHN=cells_RHN, lengths_RH=kept_RH, unmatched_B=unmatched_B)


def _holes_and_movers(
    cells_RHN: Tensor, lengths_RH: Tensor, keep_RHN: Tensor, releasable_RHN: Tensor, chosen_R: Tensor
) -> tuple[list[int], list[int]]:
    """Cells of both kinds in the chosen rows, by row, head and position."""
    holes: list[int] = []
    movers: list[int] = []
    for row in chosen_R.nonzero().flatten().tolist():
        for head in range(cells_RHN.shape[1]):
            for position in range(int(lengths_RH[row, head])):
                kept = bool(keep_RHN[row, head, position])
                if kept == bool(releasable_RHN[row, head, position]):
                    (movers if kept else holes).append(int(cells_RHN[row, head, position]))
    return holes, movers


def _new_table(
    cells_RHN: Tensor, lengths_RH: Tensor, keep_RHN: Tensor, moved_to: dict[int, int]
) -> tuple[Tensor, Tensor]:
    rows, heads, _ = cells_RHN.shape
    lists = [
        [
            [
                moved_to.get(int(cells_RHN[row, head, position]), int(cells_RHN[row, head, position]))
                for position in range(int(lengths_RH[row, head]))
                if keep_RHN[row, head, position]
            ]
            for head in range(heads)
        ]
        for row in range(rows)
    ]
    kept_RH = torch.tensor([[len(cells) for cells in row] for row in lists], dtype=torch.int64).view(rows, heads)
    width = int(kept_RH.max()) if kept_RH.numel() else 0
    cells_RHK = torch.zeros(rows, heads, width, dtype=torch.int64)
    for row in range(rows):
        for head in range(heads):
            cells = lists[row][head]
            cells_RHK[row, head, : len(cells)] = torch.tensor(cells, dtype=torch.int64)
    return cells_RHK, kept_RH
