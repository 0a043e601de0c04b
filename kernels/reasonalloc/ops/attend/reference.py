"""One query head at a time."""

import torch
from torch import Tensor

from reasonalloc.ops.attend.segments import Segments


def attend_cells(
    queries_BQD: Tensor, k_pool_CD: Tensor, v_pool_CD: Tensor, cells_BHN: Tensor, lengths_BH: Tensor, scale: float
) -> Tensor:
    """See ``reasonalloc.ops.attend.attend_cells``."""
    out_BQD = torch.zeros_like(queries_BQD)
    group = queries_BQD.shape[1] // cells_BHN.shape[1]
    for request in range(queries_BQD.shape[0]):
        for query_head in range(queries_BQD.shape[1]):
            head = query_head // group
            cells = cells_BHN[request, head, : int(lengths_BH[request, head])]
            out_BQD[request, query_head] = _attend(
                queries_BQD[request, query_head], k_pool_CD[cells], v_pool_CD[cells], scale
            )
    return out_BQD


def attend_slots(
    queries_BQD: Tensor, k_SHD: Tensor, v_SHD: Tensor, slots_BN: Tensor, lengths_B: Tensor, scale: float
) -> Tensor:
    """See ``reasonalloc.ops.attend.attend_slots``."""
    out_BQD = torch.zeros_like(queries_BQD)
    group = queries_BQD.shape[1] // k_SHD.shape[1]
    for request in range(queries_BQD.shape[0]):
        slots = slots_BN[request, : int(lengths_B[request])]
        for query_head in range(queries_BQD.shape[1]):
            head = query_head // group
            out_BQD[request, query_head] = _attend(
                queries_BQD[request, query_head], k_SHD[slots, head], v_SHD[slots, head], scale
            )
    return out_BQD


def attend_segments(
    queries_BQD: Tensor, k_pool_CD: Tensor, v_pool_CD: Tensor, segments: Segments, *, layer: int, scale: float
) -> Tensor:
    """See ``reasonalloc.ops.attend.attend_segments``."""
    out_BQD = torch.zeros_like(queries_BQD)
    group = queries_BQD.shape[1] // segments.owned_TLH.shape[2]
    for request in range(queries_BQD.shape[0]):
        for query_head in range(queries_BQD.shape[1]):
            cells = _cells(segments, request, layer, query_head // group)
            out_BQD[request, query_head] = _attend(
                queries_BQD[request, query_head], k_pool_CD[cells], v_pool_CD[cells], scale
            )
    return out_BQD


def _cells(segments: Segments, request: int, layer: int, head: int) -> list[int]:
    """One head's cells: prefix, owned, tail."""
    row_slots = segments.slots_RN[int(segments.slot_rows_B[request])].tolist()
    tail = slice(int(segments.tail_start_B[request]), int(segments.tail_end_B[request]))
    prefix_cells, tail_cells = (
        [(layer * segments.num_slots + slot) * segments.owned_TLH.shape[2] + head for slot in slots]
        for slots in (row_slots[: int(segments.prefix_B[request])], row_slots[tail])
    )
    table_row = int(segments.table_rows_B[request])
    num_owned = int(segments.owned_TLH[table_row, layer, head]) if table_row >= 0 else 0
    owned_cells = segments.cells_TLHK[table_row, layer, head, :num_owned].tolist() if num_owned else []
    return [*prefix_cells, *owned_cells, *tail_cells]


def _attend(query_D: Tensor, keys_ND: Tensor, values_ND: Tensor, scale: float) -> Tensor:
    if keys_ND.shape[0] == 0:
        return torch.zeros_like(query_D)
    weights_N = (keys_ND.float() @ query_D.float() * scale).softmax(dim=0)
    return (weights_N @ values_ND.float()).to(query_D.dtype)
