"""All heads at once: gather the lists, then torch's fused attention over them.

A request's query heads that share a kv head become the query tokens of one attention call, so that
no key or value is repeated. The fused kernel accumulates and normalises in float32 whatever the
dtype, so 16-bit keys and values are never copied to float32.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from reasonalloc.shapes import valid_mask


def attend_cells(
    queries_BQD: Tensor, k_pool_CD: Tensor, v_pool_CD: Tensor, cells_BHN: Tensor, lengths_BH: Tensor, scale: float
) -> Tensor:
    """See ``reasonalloc.ops.attend.attend_cells``."""
    valid_BHN = valid_mask(lengths_BH, cells_BHN.shape[2])
    cells = _without_padding(cells_BHN, valid_BHN).flatten()
    shape_BHND = (*cells_BHN.shape, k_pool_CD.shape[1])
    k_BHND = k_pool_CD.index_select(0, cells).view(shape_BHND)
    v_BHND = v_pool_CD.index_select(0, cells).view(shape_BHND)
    return _attend(queries_BQD, k_BHND, v_BHND, valid_BHN, scale)


def attend_slots(
    queries_BQD: Tensor, k_SHD: Tensor, v_SHD: Tensor, slots_BN: Tensor, lengths_B: Tensor, scale: float
) -> Tensor:
    """See ``reasonalloc.ops.attend.attend_slots``."""
    valid_BN = valid_mask(lengths_B, slots_BN.shape[1])
    slots = _without_padding(slots_BN, valid_BN).flatten()
    shape_BNHD = (*slots_BN.shape, *k_SHD.shape[1:])
    k_BHND = k_SHD.index_select(0, slots).view(shape_BNHD).transpose(1, 2)
    v_BHND = v_SHD.index_select(0, slots).view(shape_BNHD).transpose(1, 2)
    return _attend(queries_BQD, k_BHND, v_BHND, valid_BN[:, None].expand(k_BHND.shape[:3]), scale)


def _without_padding(places: Tensor, valid: Tensor) -> Tensor:
    """Padding repeats the list's first place: a stranger's cell may hold NaN, which no mask undoes."""
    if places.shape[-1] == 0:
        return places
    first = torch.where(valid[..., :1], places[..., :1], 0)
    return torch.where(valid, places, first)


def _attend(queries_BQD: Tensor, k_BHND: Tensor, v_BHND: Tensor, valid_BHN: Tensor, scale: float) -> Tensor:
    if k_BHND.numel() == 0:
        return torch.zeros_like(queries_BQD)
    batch, heads, _, head_dim = k_BHND.shape
    queries_BHGD = queries_BQD.reshape(batch, heads, -1, head_dim)
    out_BHGD = scaled_dot_product_attention(queries_BHGD, k_BHND, v_BHND, attn_mask=valid_BHN[:, :, None], scale=scale)
    # Lists are filled from the front, so a list without a first place is empty.
    return torch.where(valid_BHN[:, :, :1, None], out_BHGD, 0).flatten(1, 2)
