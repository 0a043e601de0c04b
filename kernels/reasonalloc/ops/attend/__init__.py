"""Decode attention: one query token per request over what its request still holds."""

import torch
from torch import Tensor

from reasonalloc.ops.attend import vectorized
from reasonalloc.shapes import check_axes, check_dtype


def attend_cells(
    queries_BQD: Tensor, k_pool_CD: Tensor, v_pool_CD: Tensor, cells_BHN: Tensor, lengths_BH: Tensor, scale: float
) -> Tensor:
    """Attends over one list of cells per kv head, of any length each.

    Args:
        queries_BQD: Floating point; query heads ``h * G`` to ``h * G + G - 1`` share kv head ``h``.
        k_pool_CD: Keys of every cell, in the dtype of the queries.
        v_pool_CD: Values of every cell, in the dtype of the queries.
        cells_BHN: int64 cells; padding may hold anything.
        lengths_BH: int64.
        scale: Factor of the logits, usually ``D ** -0.5``.

    Returns:
        ``[B, Q, D]`` in the dtype of the queries; zero for a head without cells. The softmax is in
        float32 for every dtype.

    Raises:
        ValueError: Shapes or dtypes do not agree.
    """
    sizes = check_axes(
        queries_BQD=queries_BQD, k_pool_CD=k_pool_CD, v_pool_CD=v_pool_CD, cells_BHN=cells_BHN, lengths_BH=lengths_BH
    )
    check_dtype(queries_BQD.dtype, k_pool_CD=k_pool_CD, v_pool_CD=v_pool_CD)
    check_dtype(torch.int64, cells_BHN=cells_BHN, lengths_BH=lengths_BH)
    _check_groups(sizes["Q"], sizes["H"])
    return vectorized.attend_cells(queries_BQD, k_pool_CD, v_pool_CD, cells_BHN, lengths_BH, scale)


def attend_slots(
    queries_BQD: Tensor, k_SHD: Tensor, v_SHD: Tensor, slots_BN: Tensor, lengths_B: Tensor, scale: float
) -> Tensor:
    """Attends over one list of slots per request, the same for all its kv heads.

    Args:
        queries_BQD: Floating point; query heads ``h * G`` to ``h * G + G - 1`` share kv head ``h``.
        k_SHD: Keys of every slot of one layer, in the dtype of the queries.
        v_SHD: Values of every slot of one layer, in the dtype of the queries.
        slots_BN: int64 slots; padding may hold anything.
        lengths_B: int64.
        scale: Factor of the logits, usually ``D ** -0.5``.

    Returns:
        ``[B, Q, D]`` in the dtype of the queries; zero for a request without slots. The softmax is
        in float32 for every dtype.

    Raises:
        ValueError: Shapes or dtypes do not agree.
    """
    sizes = check_axes(queries_BQD=queries_BQD, k_SHD=k_SHD, v_SHD=v_SHD, slots_BN=slots_BN, lengths_B=lengths_B)
    check_dtype(queries_BQD.dtype, k_SHD=k_SHD, v_SHD=v_SHD)
    check_dtype(torch.int64, slots_BN=slots_BN, lengths_B=lengths_B)
    _check_groups(sizes["Q"], sizes["H"])
    return vectorized.attend_slots(queries_BQD, k_SHD, v_SHD, slots_BN, lengths_B, scale)


def _check_groups(query_heads: int, kv_heads: int) -> None:
    if kv_heads == 0 or query_heads % kv_heads:
        raise ValueError(f"{query_heads} query heads over {kv_heads} kv heads; give a multiple of the kv heads")
