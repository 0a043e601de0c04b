"""One query head at a time."""

import torch
from torch import Tensor


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


def _attend(query_D: Tensor, keys_ND: Tensor, values_ND: Tensor, scale: float) -> Tensor:
    if keys_ND.shape[0] == 0:
        return torch.zeros_like(query_D)
    weights_N = (keys_ND.float() @ query_D.float() * scale).softmax(dim=0)
    return (weights_N @ values_ND.float()).to(query_D.dtype)
