"""Decode attention: one query token per request over what its request still holds."""

import torch
from torch import Tensor

from reasonalloc.ops import launch
from reasonalloc.ops.attend import vectorized
from reasonalloc.ops.attend.segments import Segments
from reasonalloc.shapes import check_axes, check_dtype

__all__ = ["Segments", "attend_cells", "attend_segments", "attend_slots"]


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
    if launch.use_kernel(queries_BQD.device):
        from reasonalloc.ops.attend import kernel

        return kernel.attend_cells(queries_BQD, k_pool_CD, v_pool_CD, cells_BHN, lengths_BH, scale)
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
    if launch.use_kernel(queries_BQD.device):
        from reasonalloc.ops.attend import kernel

        return kernel.attend_slots(queries_BQD, k_SHD, v_SHD, slots_BN, lengths_B, scale)
    return vectorized.attend_slots(queries_BQD, k_SHD, v_SHD, slots_BN, lengths_B, scale)


def attend_segments(
    queries_BQD: Tensor, k_pool_CD: Tensor, v_pool_CD: Tensor, segments: Segments, *, layer: int, scale: float
) -> Tensor:
    """Attends over pinned prefix slots, owned cells and tail slots of each request.

    As ``attend_cells`` over the three put together, but no table of all cells is made. On an accelerator
    nothing waits for the device and the launch depends on shapes only, so a CUDA graph can capture it.

    Args:
        queries_BQD: Floating point; query heads ``h * G`` to ``h * G + G - 1`` share kv head ``h``.
        k_pool_CD: Keys of every cell of all layers, in the dtype of the queries.
        v_pool_CD: Values of every cell of all layers, in the dtype of the queries.
        segments: Where the requests' tokens lie.
        layer: The layer to attend in.
        scale: Factor of the logits, usually ``D ** -0.5``.

    Returns:
        ``[B, Q, D]`` in the dtype of the queries; zero for a head without tokens. The softmax is in
        float32 for every dtype.

    Raises:
        ValueError: Shapes or dtypes do not agree, or ``layer`` is out of range.
    """
    segments.check(queries_BQD, k_pool_CD, v_pool_CD, layer)
    _check_groups(queries_BQD.shape[1], segments.owned_TLH.shape[2])
    if launch.use_kernel(queries_BQD.device):
        from reasonalloc.ops.attend import kernel

        return kernel.attend_segments(queries_BQD, k_pool_CD, v_pool_CD, segments, layer=layer, scale=scale)
    from reasonalloc.ops.attend import compiled

    return compiled.attend_segments(queries_BQD, k_pool_CD, v_pool_CD, segments, layer=layer, scale=scale)


def _check_groups(query_heads: int, kv_heads: int) -> None:
    if kv_heads == 0 or query_heads % kv_heads:
        raise ValueError(f"{query_heads} query heads over {kv_heads} kv heads; give a multiple of the kv heads")
