"""One candidate at a time."""

import torch
from torch import Tensor

from reasonalloc.ops.compact.plan import CompactionPlan, unequal_counts_error


def plan_compaction(
    cells_RHN: Tensor,
    lengths_RH: Tensor,
    keep_RHN: Tensor,
    releasable_RHN: Tensor,
    request_R: Tensor,
    num_requests: int,
) -> CompactionPlan:
    """See ``reasonalloc.ops.compact.plan_compaction``."""
    rows, heads, _ = cells_RHN.shape
    src: list[int] = []
    dst: list[int] = []
    for request in range(num_requests):
        holes: list[int] = []
        movers: list[int] = []
        for row in range(rows):
            if int(request_R[row]) != request:
                continue
            for head in range(heads):
                for position in range(int(lengths_RH[row, head])):
                    kept = bool(keep_RHN[row, head, position])
                    if kept == bool(releasable_RHN[row, head, position]):
                        (movers if kept else holes).append(int(cells_RHN[row, head, position]))
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
